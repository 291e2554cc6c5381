// 8-bit floats: every kind of scale against a loop, refusals, and configurations.
#include <slimtrim/pipeline/format/float8_checkpoint.hpp>

#include <pipeline/format/golden_matrix.hpp>

#include <doctest/doctest.h>

#include <cstring>

namespace pipeline_format_float8_checkpoint_test {

using namespace slimtrim;
using namespace format_tests;

namespace {

constexpr index_t rows = 6, columns = 10;

std::uint8_t code(index_t r, index_t c) {
  return static_cast<std::uint8_t>((37 * r + 11 * c + 5) % 120 + (r + c) % 2 * 128);
}

std::string codes() {
  std::string bytes;
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < columns; ++c) bytes.push_back(static_cast<char>(code(r, c)));
  return bytes;
}

std::string floats(std::vector<float> const& values) {
  return {reinterpret_cast<char const*>(values.data()), values.size() * 4};
}

struct stored_matrix {
  temporary_folder folder{};
  std::shared_ptr<checkpoint const> files{};
  stored_matrix(std::string const& scale_name, std::vector<index_t> const& shape, std::vector<float> const& scales,
                std::string const& bytes = codes(), std::vector<index_t> const& matrix = {rows, columns}) {
    files = stored(folder, {{"m.weight", dtype::float8_e4m3, matrix}, {scale_name, dtype::float32, shape}},
                   {{"m.weight", bytes}, {scale_name, floats(scales)}});
  }
};

// E4M3 by its definition: sign, 4 bits of exponent above 7, 3 of mantissa.
double value_of(std::uint8_t raw) {
  int const exponent = (raw >> 3) & 15, mantissa = raw & 7;
  double const magnitude = exponent == 0 ? mantissa * std::pow(2.0, -9) : (8 + mantissa) * std::pow(2.0, exponent - 10);
  return (raw & 128) != 0 ? -magnitude : magnitude;
}

template <class Scale>
void check_values(float8_checkpoint_format const& format, stored_matrix const& at, Scale&& scale) {
  REQUIRE(format.holds(*at.files, "m"));
  CHECK_FALSE(format.holds(*at.files, "other"));
  tensor<float, 2> const found = expand(format.read(*at.files, "m", rows, columns, nullptr).view);
  index_t different = 0;
  // A code has 4 bits and these scales have few: the product is exact in float.
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < columns; ++c)
      different += static_cast<double>(found(r, c)) != value_of(code(r, c)) * scale(r, c) ? 1 : 0;
  CHECK(different == 0);
}

std::string refusal_of(float8_checkpoint_format const& format, stored_matrix const& at) {
  try {
    static_cast<void>(format.scheme_of(*at.files, "m", rows, columns));
    static_cast<void>(format.read(*at.files, "m", rows, columns, nullptr));
  } catch (input_error const& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("one scale a tensor, a row, a block; ragged blocks at both edges") {
  float8_checkpoint_format const plain("compressed-tensors", std::nullopt);
  for (std::vector<index_t> const& shape : {std::vector<index_t>{}, {1}, {1, 1}})
    check_values(plain, stored_matrix("m.weight_scale", shape, {0.375F}), [](index_t, index_t) { return 0.375; });
  for (std::vector<index_t> const& shape : {std::vector<index_t>{rows, 1}, {rows}})
    check_values(plain, stored_matrix("m.weight_scale", shape, {1, 2, 3, 4, 5, 6}),
                 [](index_t r, index_t) { return static_cast<double>(r + 1); });
  // Blocks of 4 x 4 in [6, 10]: 2 by 3 of them.
  float8_checkpoint_format const blocks("fp8", float8_block({4, 4}));
  stored_matrix const at("m.weight_scale_inv", {2, 3}, {1, 2, 3, 4, 5, 6});
  check_values(blocks, at, [](index_t r, index_t c) { return static_cast<double>(r / 4 * 3 + c / 4 + 1); });
  packed_scheme const scheme = blocks.scheme_of(*at.files, "m", rows, columns);
  CHECK(scheme.bits == 8);
  CHECK(scheme.group == 4);
  CHECK(scheme.scales == scale_type::float32);
  check_values(float8_checkpoint_format("fp8", float8_block({128, 128})),
               stored_matrix("m.weight_scale_inv", {1, 1}, {0.5F}), [](index_t, index_t) { return 0.5; });
}

TEST_CASE("scales of another shape, NaN, missing scales, writing: refused by name") {
  float8_checkpoint_format const blocks("fp8", float8_block({4, 4})), plain("fp8", std::nullopt);
  auto const has = [](std::string const& text, char const* part) { return text.find(part) != std::string::npos; };
  CHECK(has(refusal_of(blocks, stored_matrix("m.weight_scale_inv", {3, 2}, {1, 2, 3, 4, 5, 6})),
            "tensor 'm.weight_scale_inv': shape: expected one scale for each block of 4 x 4 of [6, 10]"));
  CHECK(has(refusal_of(blocks, stored_matrix("m.weight_scale_inv", {1}, {1})), "each block of 4 x 4"));
  CHECK(has(refusal_of(plain, stored_matrix("m.weight_scale", {2, 3}, {1, 2, 3, 4, 5, 6})),
            "one scale, or one a row, of [6, 10]"));
  CHECK(has(refusal_of(plain, stored_matrix("m.weight_scale", {1}, {std::nanf("")})),
            "tensor 'm.weight_scale': element 0"));
  CHECK(has(refusal_of(plain, stored_matrix("m.other", {1}, {1})), "m.weight_scale"));
  std::string bad = codes();
  bad[13] = static_cast<char>(0xff);
  CHECK(has(refusal_of(plain, stored_matrix("m.weight_scale", {1}, {1}, bad)),
            "tensor 'm.weight': element 13: expected a finite value"));
  CHECK(has(refusal_of(plain, stored_matrix("m.weight_scale", {1}, {1}, codes(), {columns, rows})),
            "tensor 'm.weight': shape: expected [6, 10]"));
  CHECK_FALSE(plain.writes());
  CHECK(refusal(plain, 6, 10, {}).rfind("m: 8-bit floats are read and trimmed, not written", 0) == 0);
  CHECK_THROWS_AS(static_cast<void>(plain.config({}, {})), usage_error);
}

TEST_CASE("what config.json says") {
  auto const format = [](char const* text) {
    ordered_json const json = ordered_json::parse(text);
    return detail::stored_float8(json, json["quant_method"].get<std::string>(), "p");
  };
  CHECK(
      format(
          R"({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"})")
          ->method() == "fp8");
  CHECK(format(R"({"quant_method": "fp8"})") != nullptr);
  CHECK(format(R"({"quant_method": "gptq"})") == nullptr);
  CHECK(format(R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})") == nullptr);
  CHECK(format(R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups":
                  {"group_0": {"weights": {"block_structure": [128, 128]}}}})")
            ->method() == "compressed-tensors");
  CHECK_THROWS_WITH_AS(format(R"({"quant_method": "fp8", "fmt": "e5m2"})"),
                       "p: field 'quantization_config.fmt': expected \"e4m3\", found \"e5m2\"", input_error);
  for (char const* block : {"[128]", "[0, 128]", "\"x\"", "[1.5, 2]"})
    CHECK_THROWS_AS(format((std::string(R"({"quant_method": "fp8", "weight_block_size": )") + block + "}").c_str()),
                    input_error);
  CHECK_THROWS_AS(format(R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups":
                            {"a": {"weights": {"block_structure": [128, 128]}}, "b": {"weights": {}}}})"),
                  input_error);
}

}  // namespace pipeline_format_float8_checkpoint_test
