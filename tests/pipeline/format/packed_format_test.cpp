// What all packed formats share: groups, scales as stored, and what is refused of scales and group indices.
#include <slimtrim/pipeline/format/packed_format.hpp>

#include <pipeline/format/golden_matrix.hpp>

#include <doctest/doctest.h>

namespace pipeline_format_packed_format_test {

using namespace slimtrim;
using namespace format_tests;

TEST_CASE("groups of a scheme") {
  CHECK(detail::scheme_groups({.group = 0}, 300) == 1);
  CHECK(detail::scheme_groups({.group = 128}, 256) == 2);
  CHECK(detail::scheme_groups({.group = 128}, 300) == 3);
  CHECK(detail::natural_groups({0, 0, 1, 1}, 2));
  CHECK_FALSE(detail::natural_groups({0, 1, 0, 1}, 2));
}

TEST_CASE("scales are stored in their own type, by rows or by columns") {
  matrix<float> scales(2, 3);
  for (index_t i = 0; i < 2; ++i)
    for (index_t j = 0; j < 3; ++j) scales(i, j) = static_cast<float>(3 * i + j + 1) / 8.0F;
  auto const full = detail::stored_scales(scales.view(), scale_type::float32, true);
  REQUIRE(full.size() == 24);
  float second = 0;
  std::memcpy(&second, full.data() + 4, 4);
  CHECK(second == 0.5F);  // element (1, 0) follows (0, 0)
  for (scale_type const type : {scale_type::float32, scale_type::float16, scale_type::bfloat16}) {
    temporary_folder const folder;
    auto const bytes = detail::stored_scales(scales.view(), type, false);
    std::vector<tensor_description> const described{{"s", detail::dtype_of_scales(type), {2, 3}}};
    auto const files = stored(folder, described, {{"s", {reinterpret_cast<char const*>(bytes.data()), bytes.size()}}});
    CHECK(detail::scale_type_of(*files, files->at("s")) == type);
    matrix<float> const back = detail::loaded_scales(*files, files->at("s"));
    for (index_t i = 0; i < 2; ++i)
      for (index_t j = 0; j < 3; ++j) CHECK(back(i, j) == scales(i, j));
    CHECK_NOTHROW(detail::require_shape(*files, files->at("s"), dtype::unknown, 2, 3));
    try {
      detail::require_shape(*files, files->at("s"), dtype::unknown, 3, 2);
      FAIL("accepted");
    } catch (input_error const& e) {
      CHECK(std::string(e.what()).find("tensor 's': shape: expected [3, 2], found [2, 3]") != std::string::npos);
    }
    CHECK_THROWS_AS(detail::require_shape(*files, files->at("s"), dtype::int32, 2, 3), input_error);
  }
}

TEST_CASE("scales of another type, and group indices out of range") {
  temporary_folder const folder;
  std::vector<tensor_description> const described{{"g", dtype::int32, {4}}};
  std::string bytes(16, '\0');
  bytes[8] = 3;
  auto const files = stored(folder, described, {{"g", bytes}});
  CHECK_THROWS_AS(static_cast<void>(detail::scale_type_of(*files, files->at("g"))), input_error);
  CHECK(detail::loaded_column_groups(*files, files->at("g"), 4, 4) == std::vector<std::int32_t>{0, 0, 3, 0});
  CHECK_THROWS_AS(static_cast<void>(detail::loaded_column_groups(*files, files->at("g"), 4, 3)), input_error);
  CHECK_THROWS_AS(static_cast<void>(detail::loaded_column_groups(*files, files->at("g"), 5, 4)), input_error);
}

}  // namespace pipeline_format_packed_format_test
