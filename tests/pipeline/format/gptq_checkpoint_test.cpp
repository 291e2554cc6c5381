// GPTQ checkpoints: golden vectors of codes and zero points in both versions, refusals, configuration, reading.
#include <slimtrim/pipeline/format/gptq_checkpoint.hpp>

#include <pipeline/format/golden_matrix.hpp>

#include <doctest/doctest.h>

namespace pipeline_format_gptq_checkpoint_test {

using namespace slimtrim;
using namespace format_tests;

namespace {

packed_scheme half(int bits, index_t group) { return {.bits = bits, .group = group, .scales = scale_type::float16}; }

}  // namespace

TEST_CASE("golden vectors") {
  gptq_checkpoint_format const format;
  auto const out = emitted(format, golden(half(4, 0)), half(4, 0));
  CHECK(words(out.at("m.qweight"), 0, 8) == "52fc9630 c9630da7 30da741e a741eb85 1eb852fc 852fc963 fc9630da 630da741");
  CHECK(words(out.at("m.qweight"), 32, 8) == "da741eb8 41eb852f b852fc96 2fc9630d 9630da74 0da741eb 741eb852 eb852fc9");
  CHECK(words(out.at("m.qzeros"), 0) == "77777777");  // the middle, 8, minus one
  CHECK(words(out.at("m.scales"), 0, 1) == "28002400");
  CHECK(words(out.at("m.g_idx"), 0, 2) == "00000000 00000000");
  auto const grouped = emitted(format, golden(half(4, 8)), half(4, 8));
  CHECK(words(grouped.at("m.g_idx"), 28, 2) == "00000000 00000001");
}

TEST_CASE("what was written is read back, version 2 and asymmetric zeros are read too") {
  gptq_checkpoint_format const first(1), second(2);
  for (int const bits : {2, 4})
    for (index_t const group : {index_t{0}, index_t{8}}) {
      CAPTURE(bits);
      if (32 / bits > 8) {
        CHECK(refusal(first, 8, 16, half(bits, group)).rfind("m: the gptq format needs", 0) == 0);
        continue;
      }
      packed_scheme read = half(bits, group);
      read.zero_points = true;
      round_trip(first, golden(half(bits, group)), half(bits, group), read);
    }
  round_trip(first, golden(half(8, 8)), half(8, 8), {.bits = 8, .group = 8, .zero_points = true, .scales = scale_type::float16});

  // The golden matrix with zero points n + 4: the words ba987654 in version 2, a9876543 in version 1.
  packed_scheme const asymmetric{.bits = 4, .group = 0, .zero_points = true, .scales = scale_type::float16};
  tensor<float, 2> const expected = expand(weight_view(golden(asymmetric).view()));
  for (auto const& [version, zeros] : {std::pair{1, 0xa9876543U}, std::pair{2, 0xba987654U}}) {
    temporary_folder const folder;
    auto tensors = emitted(first, golden(half(4, 0)), half(4, 0));
    std::memcpy(tensors["m.qzeros"].data(), &zeros, 4);
    auto const files = stored(folder, first.describe("m", 8, 16, half(4, 0)), tensors);
    weight const back = (version == 1 ? first : second).read(*files, "m", 8, 16, files);
    tensor<float, 2> const found = expand(back.view);
    for (index_t i = 0; i < 8; ++i)
      for (index_t j = 0; j < 16; ++j) CHECK(found(i, j) == expected(i, j));
  }
}

TEST_CASE("groups out of order") {
  gptq_checkpoint_format const format;
  temporary_folder const folder;
  quantized_matrix const w = golden(half(4, 8));
  auto tensors = emitted(format, w, half(4, 8));
  for (int c = 0; c < 16; ++c) {
    std::int32_t const group = c % 2;
    std::memcpy(tensors["m.g_idx"].data() + 4 * c, &group, 4);
  }
  auto const files = stored(folder, format.describe("m", 8, 16, half(4, 8)), tensors);
  weight const back = format.read(*files, "m", 8, 16, files);
  tensor<float, 2> const found = expand(back.view);
  for (int n = 0; n < 8; ++n)
    for (int k = 0; k < 16; ++k)
      CHECK(found(n, k) == static_cast<float>((7 * n + 3 * k) % 16 - 8) * static_cast<float>((n + 1) * (k % 2 + 1)) / 64.0F);
  CHECK(damaged(format, half(4, 8), "m.g_idx", [](tensor_description&, std::string& b) { b[0] = 2; }).find("tensor 'm.g_idx': expected groups below 2") != std::string::npos);
}

TEST_CASE("refusals") {
  gptq_checkpoint_format const format;
  CHECK(refusal(format, 8, 16, half(4, 8)) == "accepted");
  CHECK(refusal(format, 8, 16, half(3, 8)).rfind("m: the gptq format is written for 2, 4 and 8 bits", 0) == 0);
  packed_scheme bad = half(4, 8);
  bad.zero_points = true;
  CHECK(refusal(format, 8, 16, bad).find("symmetric") != std::string::npos);
  bad = half(4, 8);
  bad.scales = scale_type::bfloat16;
  CHECK(refusal(format, 8, 16, bad).find("float16") != std::string::npos);
  CHECK(refusal(format, 12, 16, half(4, 8)).find("multiples of 8") != std::string::npos);
  CHECK(refusal(format, 8, 24, half(4, 16)).find("divisor of the 24 inputs") != std::string::npos);
  CHECK(damaged(format, half(4, 8), "m.qweight", [](tensor_description& t, std::string&) { t.shape = {8, 2}; }).find("tensor 'm.qweight'") != std::string::npos);
  CHECK(damaged(format, half(4, 8), "m.qzeros", [](tensor_description& t, std::string&) { t.shape = {1, 2}; }).find("tensor 'm.qzeros'") != std::string::npos);
}

TEST_CASE("configuration has what engines require") {
  gptq_checkpoint_format const format;
  ordered_json const config = format.config({{half(4, 64), {"a"}}}, {});
  for (std::string const key : {"quant_method", "bits", "group_size", "desc_act", "sym", "checkpoint_format"}) CHECK(config.contains(key));
  CHECK(config["group_size"] == 64);
  CHECK(format.config({{half(4, 0), {"a"}}}, {})["group_size"] == -1);
  CHECK_THROWS_AS(static_cast<void>(format.config({}, {})), usage_error);
}

}  // namespace pipeline_format_gptq_checkpoint_test
