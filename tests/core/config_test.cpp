#include <slimtrim/core/config.hpp>
#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>
#include <string>

namespace core_config_test {

using namespace slimtrim;

static_assert(bits_as<std::uint32_t>(1.0F) == 0x3f800000U);
static_assert(bits_as<float>(0xc0000000U) == -2.0F);

TEST_CASE("the version string is made of the version numbers") {
  CHECK(std::string(SLIMTRIM_VERSION_STRING) == std::to_string(SLIMTRIM_VERSION_MAJOR) + "." +
                                                    std::to_string(SLIMTRIM_VERSION_MINOR) + "." +
                                                    std::to_string(SLIMTRIM_VERSION_PATCH));
}

TEST_CASE("bits_as round-trips representations") {
  for (std::uint32_t raw : {0U, 0x80000000U, 0x7fc00001U, 0x00000001U, 0xffffffffU})
    CHECK(bits_as<std::uint32_t>(bits_as<float>(raw)) == raw);
}

}  // namespace core_config_test
