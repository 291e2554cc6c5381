// AutoAWQ GEMM: golden vectors of the interleaved order, refusals, configuration, reading.
#include <slimtrim/pipeline/format/auto_awq.hpp>

#include <pipeline/format/golden_matrix.hpp>

#include <doctest/doctest.h>

namespace pipeline_format_auto_awq_test {

using namespace slimtrim;
using namespace format_tests;

TEST_CASE("golden vectors") {
  auto_awq_format const format;
  packed_scheme const scheme{.bits = 4, .group = 0, .zero_points = true, .scales = scale_type::float16};
  auto const out = emitted(format, golden(scheme), scheme);
  CHECK(words(out.at("m.qweight"), 0) == "1357ace0 468adf13");  // rows k = 0 and 1
  CHECK(words(out.at("m.qzeros"), 0) == "b975a864");
  // Scales run along the outputs: 1 / 64 is 0x2400, 2 / 64 is 0x2800 in float16.
  CHECK(words(out.at("m.scales"), 0, 1) == "28002400");
}

TEST_CASE("symmetric weights get the middle as zero point") {
  auto_awq_format const format;
  packed_scheme const scheme{.bits = 4, .group = 8, .scales = scale_type::float16};
  CHECK(words(emitted(format, golden(scheme), scheme).at("m.qzeros"), 0) == "88888888 88888888");
  packed_scheme read = scheme;
  read.zero_points = true;
  round_trip(format, golden(scheme), scheme, read);
}

TEST_CASE("what was written is read back") {
  auto_awq_format const format;
  for (index_t const group : {index_t{0}, index_t{8}, index_t{4}}) {
    packed_scheme const scheme{.bits = 4, .group = group, .zero_points = true, .scales = scale_type::float16};
    round_trip(format, golden(scheme), scheme, scheme);
  }
}

TEST_CASE("refusals") {
  auto_awq_format const format;
  packed_scheme const good{.bits = 4, .group = 8, .zero_points = true, .scales = scale_type::float16};
  CHECK(refusal(format, 8, 16, good) == "accepted");
  packed_scheme bad = good;
  bad.bits = 3;
  CHECK(refusal(format, 8, 16, bad) == "m: the awq format carries 4 bits, found 3");
  bad = good;
  bad.scales = scale_type::bfloat16;
  CHECK(refusal(format, 8, 16, bad).rfind("m: the awq format stores scales in float16", 0) == 0);
  CHECK(refusal(format, 12, 16, good).rfind("m: the awq format needs a multiple of 8 outputs, found 12", 0) == 0);
  CHECK(refusal(format, 8, 12, good).rfind("m: group: expected a divisor of the 12 inputs", 0) == 0);
  CHECK(damaged(format, good, "m.qweight", [](tensor_description& t, std::string&) { t.shape = {8, 2}; }).find("tensor 'm.qweight'") != std::string::npos);
  CHECK(damaged(format, good, "m.qzeros", [](tensor_description& t, std::string&) { t.shape = {1, 2}; }).find("tensor 'm.qzeros'") != std::string::npos);
  CHECK(damaged(format, good, "m.scales", [](tensor_description& t, std::string&) { t.shape = {8, 2}; }).find("tensor 'm.scales'") != std::string::npos);
}

TEST_CASE("configuration") {
  auto_awq_format const format;
  CHECK(format.config({{{.bits = 4, .group = 64}, {"a"}}}, {"gate"}).dump() ==
        R"({"quant_method":"awq","bits":4,"group_size":64,"zero_point":true,"version":"gemm"})");
  CHECK(format.config({{{.bits = 4, .group = 0}, {"a"}}}, {})["group_size"] == -1);
  CHECK_THROWS_AS(static_cast<void>(format.config({{{.bits = 4}, {"a"}}, {{.bits = 8}, {"b"}}}, {})), usage_error);
}

}  // namespace pipeline_format_auto_awq_test
