// The report on statistics: keys, numbers fed by hand, and no infinity in JSON.
#include <slimtrim/pipeline/statistics_report.hpp>

#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>

namespace pipeline_statistics_report_test {

using namespace slimtrim;

TEST_CASE("layers with and without experts") {
  model_config const config = synth_config({.family = "deepseek", .layers = 2, .hidden = 4, .intermediate = 2,
                                            .experts = 3, .top_k = 1, .heads = 1});
  model_statistics const statistics = empty_statistics(config, std::string(32, '0'), 4, {});
  ordered_json const json = statistics_json(statistics);
  CHECK(json["tokens"] == 0);
  CHECK(json["coverage"] == 0);
  REQUIRE(json["layers"].size() == 2);
  CHECK_FALSE(json["layers"][0].contains("importance"));
  CHECK(json["layers"][1]["unreached"] == ordered_json({0, 1, 2}));
  CHECK(json["layers"][1]["tokens"] == ordered_json({0, 0, 0}));
  CHECK(json["layers"][1]["importance"]["frequency"].size() == 3);
  CHECK(json["layers"][1]["importance"].contains("mone"));
  CHECK(json["layers"][1]["similarity"].contains("moe"));
  CHECK_NOTHROW((void)json_text(json));
}

TEST_CASE("criteria that need a table are left out without it") {
  model_config const config = synth_config({.layers = 1, .hidden = 4, .intermediate = 2, .experts = 2, .top_k = 1,
                                            .heads = 1});
  statistics_tables tables;
  tables.outputs = false;
  ordered_json const json = statistics_json(empty_statistics(config, std::string(32, '0'), 4, tables));
  CHECK_FALSE(json["layers"][0]["importance"].contains("mone"));
  CHECK(json["layers"][0]["importance"].contains("reap"));
}

TEST_CASE("what is not finite becomes null") {
  ordered_json const list =
      detail::score_list({1.5, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()});
  CHECK(list == ordered_json({1.5, nullptr, nullptr}));
}

}  // namespace pipeline_statistics_report_test
