#include <slimtrim/core/memory_space.hpp>
#include <doctest/doctest.h>

#include <type_traits>

namespace core_memory_space_test {

using namespace slimtrim;

template <space Space>
struct in_space {};

TEST_CASE("memory spaces are distinct types once they are template arguments") {
  CHECK_FALSE(std::is_same_v<in_space<space::host>, in_space<space::device>>);
  CHECK(space::host != space::device);
}

}  // namespace core_memory_space_test
