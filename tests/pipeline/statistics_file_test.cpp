// The statistics file: everything comes back, equal statistics are equal files, and strange files are refused by field.
#include <slimtrim/pipeline/statistics_file.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>

namespace pipeline_statistics_file_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

std::string with(std::string bytes, std::string const& from, std::string const& to) {
  REQUIRE(from.size() == to.size());
  auto const at = bytes.find(from);
  REQUIRE(at != std::string::npos);
  return bytes.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("round trip") {
  temporary_folder const folder;
  for (bool const blocks : {false, true})
    for (bool const tables : {false, true}) {
      calibrate_options options;
      options.tables = {.outputs = tables, .neurons = tables, .blocks = blocks};
      model_statistics const found = calibrate_model(bundled(), train_windows(2, 24), 1, options);
      std::filesystem::path const file = folder.path() / ("s" + std::to_string(blocks) + std::to_string(tables));
      save_statistics(found, file);
      model_statistics const back = load_statistics(file, bundled().config);
      CHECK(back.model == found.model);
      CHECK(back.sequence == 24);
      CHECK(back.windows == found.windows);
      CHECK(back.blocks.has_value() == blocks);
      CHECK(back.layer(3).router.count(2) == found.layer(3).router.count(2));
      CHECK(bytes_of(back) == bytes_of(found));
      // What was read goes on being summed.
      model_statistics more = back;
      model_statistics const rest = calibrate_model(bundled(), train_windows(1, 24, 2), 1, options);
      more.merge(rest, "rest");
      CHECK(bytes_of(more) == bytes_of(calibrate_model(bundled(), train_windows(3, 24), 1, options)));
    }
}

TEST_CASE("strange files are refused by name") {
  temporary_folder const folder;
  calibrate_options options;
  options.tables = {.outputs = false, .neurons = false, .blocks = false};
  model_statistics const found = calibrate_model(bundled(), train_windows(1, 24), 1, options);
  std::string const good = bytes_of(found);
  auto const refusal = [&](std::string const& bytes, model_config const& config) {
    auto const file = folder.write("s", bytes);
    return message_of<input_error>([&] { static_cast<void>(load_statistics(file, config)); });
  };
  model_config const& config = bundled().config;
  CHECK(refusal(good, config) == "nothing thrown");
  CHECK(has(refusal(with(good, "\"slimtrim.version\":\"1\"", "\"slimtrim.version\":\"9\""), config), "field 'slimtrim.version': expected 1, found 9"));
  CHECK(has(refusal(with(good, "\"statistics\"", "\"stalistics\""), config), "field 'slimtrim.kind': expected statistics, found stalistics"));
  CHECK(has(refusal(with(good, "\"slimtrim.kind\"", "\"slimtrim.kint\""), config), "field 'slimtrim.kind'"));
  CHECK(has(refusal(with(good, "\"sequence\":\"24\"", "\"sequence\":\"-4\""), config), "field 'sequence'"));
  CHECK(has(refusal(with(good, "\"layers.0.router.count\"", "\"layers.0.router.coont\""), config), "layers.0.router.count"));
  CHECK(has(refusal(good.substr(0, good.size() - 8), config), "/s"));
  CHECK(has(refusal("", config), "/s"));
  model_config other = config;
  other.layers.pop_back();
  CHECK(has(refusal(good, other), "expected statistics of this model"));
  other = config;
  other.layers[2].experts = 4;
  CHECK(has(refusal(good, other), "tensor 'layers.2."));
}

}  // namespace pipeline_statistics_file_test
