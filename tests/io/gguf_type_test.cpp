#include <slimtrim/io/gguf_type.hpp>
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <set>
#include <vector>

namespace io_gguf_type_test {

using namespace slimtrim;

namespace {

std::optional<std::uint64_t> bytes_of(gguf_type type, std::vector<index_t> const& shape) {
  return gguf_bytes(gguf_type_info(type), shape);
}

}  // namespace

TEST_CASE("types are found by their numbers, and each number once") {
  CHECK(gguf_type_info(gguf_type::float32).name == "F32");
  CHECK(gguf_type_info(gguf_type::q4_0).name == "Q4_0");
  CHECK(gguf_type_info(gguf_type::bfloat16).name == "BF16");
  CHECK(find_gguf_type(4) == nullptr);  // a type that was withdrawn
  CHECK(find_gguf_type(1000) == nullptr);
  std::set<std::uint32_t> numbers;
  for (gguf_type_row const& row : detail::gguf_types) {
    CHECK(numbers.insert(row.number).second);
    CHECK(find_gguf_type(row.number) == &row);
  }
}

TEST_CASE("bytes of a tensor: whole blocks of its rows") {
  CHECK(bytes_of(gguf_type::float32, {3, 5}) == 60U);
  CHECK(bytes_of(gguf_type::bfloat16, {7}) == 14U);
  CHECK(bytes_of(gguf_type::q4_0, {2, 64}) == 2U * 2 * 18);
  CHECK(bytes_of(gguf_type::q8_0, {2, 3, 32}) == 2U * 3 * 34);
  CHECK(bytes_of(gguf_type::q4_0, {5, 0}) == 0U);
  CHECK(bytes_of(gguf_type::q4_0, {0, 32}) == 0U);
}

TEST_CASE("shapes without a size have none") {
  index_t const huge = std::numeric_limits<index_t>::max();
  CHECK_FALSE(bytes_of(gguf_type::float32, {}).has_value());
  CHECK_FALSE(bytes_of(gguf_type::q4_0, {2, 33}).has_value());
  CHECK_FALSE(bytes_of(gguf_type::float32, {2, -1}).has_value());
  CHECK_FALSE(bytes_of(gguf_type::float32, {-1, 2}).has_value());
  CHECK_FALSE(bytes_of(gguf_type::float32, {huge, 2}).has_value());
  CHECK_FALSE(bytes_of(gguf_type::float32, {huge, huge, 1}).has_value());
}

}  // namespace io_gguf_type_test
