#include <slimtrim/io/gguf_value.hpp>
#include <doctest/doctest.h>

namespace io_gguf_value_test {

using namespace slimtrim;

TEST_CASE("values are found by key and type, the first of equal keys") {
  gguf_metadata const metadata{{"layers", std::uint32_t{8}},
                               {"name", std::string("tiny")},
                               {"layers", std::uint32_t{9}},
                               {"ids", gguf_array(std::vector<std::int32_t>{1, -2})}};
  REQUIRE(find_gguf_value<std::uint32_t>(metadata, "layers") != nullptr);
  CHECK(*find_gguf_value<std::uint32_t>(metadata, "layers") == 8);
  CHECK(*find_gguf_value<std::string>(metadata, "name") == "tiny");
  CHECK(find_gguf_value<std::uint64_t>(metadata, "layers") == nullptr);
  CHECK(find_gguf_value<std::uint32_t>(metadata, "layer") == nullptr);
  CHECK(find_gguf_value<std::uint32_t>({}, "layers") == nullptr);
}

TEST_CASE("arrays by the type of their elements") {
  gguf_metadata const metadata{{"ids", gguf_array(std::vector<std::int32_t>{1, -2})}, {"count", std::uint32_t{2}}};
  REQUIRE(find_gguf_array<std::int32_t>(metadata, "ids") != nullptr);
  CHECK(*find_gguf_array<std::int32_t>(metadata, "ids") == std::vector<std::int32_t>{1, -2});
  CHECK(find_gguf_array<float>(metadata, "ids") == nullptr);
  CHECK(find_gguf_array<std::uint32_t>(metadata, "count") == nullptr);
}

TEST_CASE("an index in the variant is the type's number in the file") {
  CHECK(gguf_value(std::uint8_t{1}).index() == 0);
  CHECK(gguf_value(1.0F).index() == 6);
  CHECK(gguf_value(true).index() == 7);
  CHECK(gguf_value(std::string()).index() == 8);
  CHECK(gguf_value(gguf_array()).index() == 9);
  CHECK(gguf_value(1.0).index() == 12);
  CHECK(gguf_array(std::vector<std::string>()).index() == 8);
  CHECK(gguf_array(std::vector<double>()).index() == 12);
}

}  // namespace io_gguf_value_test
