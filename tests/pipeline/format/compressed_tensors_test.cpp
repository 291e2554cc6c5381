// compressed-tensors pack-quantized: golden vectors of the format, what it refuses, what its config says, and reading.
#include <slimtrim/pipeline/format/compressed_tensors.hpp>

#include <pipeline/format/golden_matrix.hpp>

#include <doctest/doctest.h>

namespace pipeline_format_compressed_tensors_test {

using namespace slimtrim;
using namespace format_tests;

TEST_CASE("golden vectors, 4 bit with zero points") {
  compressed_tensors_format const format;
  packed_scheme const scheme{.bits = 4, .group = 0, .zero_points = true};
  quantized_matrix const w = golden(scheme);
  auto const out = emitted(format, w, scheme);
  CHECK(words(out.at("m.weight_packed"), 0) == "52fc9630 da741eb8");
  CHECK(words(out.at("m.weight_packed"), 8) == "c9630da7 41eb852f");
  CHECK(words(out.at("m.weight_zero_point"), 0) == "ba987654");
  std::vector<std::int64_t> shape(2);
  std::memcpy(shape.data(), out.at("m.weight_shape").data(), 16);
  CHECK(shape == std::vector<std::int64_t>{8, 16});
}

TEST_CASE("golden vectors, 8 and 3 bit") {
  compressed_tensors_format const format;
  packed_scheme const eight{.bits = 8, .group = 0};
  quantized_matrix w(1, 8, {.bits = 8, .symmetric = true}, {.kind = group_kind::channel}, eight.scales);
  std::uint8_t const u[] = {0, 37, 74, 111, 148, 185, 222, 3};  // -128, -91, -54, -17, 20, 57, 94, -125 plus 128
  w.set_row(0, u);
  w.set(0, 0, {0.5F, 128});
  auto const out = emitted(format, w, eight);
  CHECK(words(out.at("m.weight_packed"), 0) == "6f4a2500 03deb994");
  CHECK(out.count("m.weight_zero_point") == 0);

  packed_scheme const three{.bits = 3, .group = 0};
  quantized_matrix v(1, 16, {.bits = 3, .symmetric = true}, {.kind = group_kind::channel}, three.scales);
  int const q[] = {-4, -4, -2, 1, 3, 3, -4, -3, 0, 3, 3, -4, -4, -1, 2, 3};
  std::uint8_t codes[16];
  for (int i = 0; i < 16; ++i) codes[i] = static_cast<std::uint8_t>(q[i] + 4);
  v.set_row(0, codes);
  v.set(0, 0, {0.5F, 4});
  CHECK(words(emitted(format, v, three).at("m.weight_packed"), 0) == "fc23fa80 0000f981");
}

TEST_CASE("what cannot be carried is refused with the module's name") {
  compressed_tensors_format const format;
  CHECK_NOTHROW(format.check("m", 8, 16, {.bits = 4, .group = 8}));
  CHECK_NOTHROW(format.check("m", 7, 13, {.bits = 2, .group = 0}));
  CHECK(refusal(format, 8, 16, {.bits = 1, .group = 0}).rfind("m: ", 0) == 0);
  CHECK(refusal(format, 8, 16, {.bits = 9, .group = 0}).rfind("m: ", 0) == 0);
  CHECK(refusal(format, 8, 16, {.bits = 4, .group = 12}).rfind("m: group: expected a divisor of the 16 inputs", 0) == 0);
}

TEST_CASE("configuration: strict keys only, one group by class, several by name") {
  compressed_tensors_format const format;
  ordered_json const one = format.config({{{.bits = 4, .group = 128}, {"a", "b"}}}, {"lm_head", "gate"});
  CHECK(one["quant_method"] == "compressed-tensors");
  CHECK(one["format"] == "pack-quantized");
  CHECK(one["ignore"].dump() == R"(["lm_head","gate"])");
  ordered_json const& group = one["config_groups"]["group_0"];
  CHECK(group["targets"].dump() == R"(["Linear"])");
  CHECK(group["weights"].dump() == R"({"num_bits":4,"type":"int","symmetric":true,"strategy":"group","group_size":128,"block_structure":null,)"
                                   R"("dynamic":false,"actorder":null,"observer":"minmax","observer_kwargs":{}})");
  ordered_json const two = format.config({{{.bits = 4, .group = 128}, {"a"}}, {{.bits = 8, .group = 0, .zero_points = true, .activation_order = true}, {"b", "c"}}}, {});
  CHECK(two["config_groups"]["group_0"]["targets"].dump() == R"(["a"])");
  ordered_json const& channel = two["config_groups"]["group_1"];
  CHECK(channel["targets"].dump() == R"(["b","c"])");
  CHECK(channel["weights"]["strategy"] == "channel");
  CHECK(channel["weights"]["symmetric"] == false);
  CHECK(channel["weights"]["actorder"] == "weight");
}

TEST_CASE("what was written is read back, codes in the mapping") {
  compressed_tensors_format const format;
  for (int const bits : {2, 3, 4, 8})
    for (index_t const group : {index_t{0}, index_t{8}})
      for (bool const zero_points : {false, true}) {
        CAPTURE(bits);
        CAPTURE(group);
        packed_scheme const scheme{.bits = bits, .group = group, .zero_points = zero_points};
        round_trip(format, golden(scheme), scheme, scheme);
      }
}

TEST_CASE("damaged tensors are refused by name") {
  compressed_tensors_format const format;
  packed_scheme const scheme{.bits = 4, .group = 8, .zero_points = true};
  CHECK(damaged(format, scheme, "m.weight_scale", [](tensor_description& t, std::string&) { t.shape = {8, 3}; }, 48).find("tensor 'm.weight_scale'") != std::string::npos);
  CHECK(damaged(format, scheme, "m.weight_scale", [](tensor_description&, std::string& b) { b[0] = b[1] = '\x7f'; b[1] = '\x7f'; b[0] = '\x80'; }).find("finite scale") != std::string::npos);
  CHECK(damaged(format, scheme, "m.weight_shape", [](tensor_description&, std::string& b) { b[0] = 7; }).find("tensor 'm.weight_shape'") != std::string::npos);
  CHECK(damaged(format, scheme, "m.weight_zero_point", [](tensor_description& t, std::string&) { t.shape = {2, 1}; }).find("tensor 'm.weight_zero_point'") != std::string::npos);
  CHECK(damaged(format, scheme, "m.weight_packed", [](tensor_description& t, std::string&) { t.shape = {16, 1}; }).find("tensor 'm.weight_packed'") != std::string::npos);
}

}  // namespace pipeline_format_compressed_tensors_test
