#include <slimtrim/io/dtype.hpp>

#include <doctest/doctest.h>

#include <string_view>
#include <vector>

namespace io_dtype_test {

using namespace slimtrim;

TEST_CASE("names and sizes of all types, in the format's order") {
  struct row {
    std::string_view name;
    unsigned bits;
  };
  std::vector<row> const rows{{"BOOL", 8},        {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
                              {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
                              {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16},    {"F16", 16},    {"BF16", 16},
                              {"I32", 32},        {"U32", 32}, {"F32", 32},    {"C64", 64},    {"F64", 64},
                              {"I64", 64},        {"U64", 64}};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    dtype const type = dtype_from_name(rows[i].name);
    CHECK(static_cast<std::size_t>(type) == i + 1);
    CHECK(dtype_name(type) == rows[i].name);
    CHECK(dtype_bits(type) == rows[i].bits);
  }
  CHECK(dtype_from_name("bf16") == dtype::unknown);
  CHECK(dtype_from_name("") == dtype::unknown);
  CHECK(dtype_bits(dtype::unknown) == 0);
  CHECK(dtype_name(dtype::bfloat16) == "BF16");
  CHECK(dtype_name(dtype::uint64) == "U64");
}

TEST_CASE("counts and bytes never wrap") {
  using shape = std::vector<index_t>;
  index_t const half = index_t{1} << 32;
  CHECK(element_count(shape{}) == 1);
  CHECK(element_count(shape{3, 0, 5}) == 0);
  CHECK(element_count(shape{half, half - 1}) == (std::uint64_t{1} << 32) * ((std::uint64_t{1} << 32) - 1));
  CHECK_FALSE(element_count(shape{half, half}));
  CHECK_FALSE(element_count(shape{half, half, 0}));
  CHECK_FALSE(element_count(shape{-1}));
  CHECK_FALSE(element_count(shape{4194305, 4194305, 211106198978564}));
  CHECK(byte_count(dtype::float32, shape{2, 3}) == 24);
  CHECK(byte_count(dtype::float4, shape{2, 3}) == 3);
  CHECK_FALSE(byte_count(dtype::float4, shape{3}));
  CHECK(byte_count(dtype::float6_e2m3, shape{4}) == 3);
  CHECK_FALSE(byte_count(dtype::float64, shape{index_t{1} << 58}));
  CHECK(byte_count(dtype::float64, shape{index_t{1} << 57}) == std::uint64_t{1} << 60);
}

TEST_CASE("C++ types know what they are stored as") {
  static_assert(dtype_of<float> == dtype::float32);
  static_assert(dtype_of<slimtrim::bfloat16> == dtype::bfloat16);
  static_assert(dtype_of<std::int64_t> == dtype::int64);
  static_assert(dtype_of<char*> == dtype::unknown);
  CHECK(sizeof(slimtrim::float8_e4m3) * 8 == dtype_bits(dtype_of<slimtrim::float8_e4m3>));
}

}  // namespace io_dtype_test
