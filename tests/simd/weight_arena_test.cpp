#include <doctest/doctest.h>
#include <slimtrim/simd/weight_arena.hpp>

#include <cstdint>
#include <cstring>
#include <vector>

namespace simd_weight_arena_test {

using namespace slimtrim;

TEST_CASE("pieces are zeroed, aligned, disjoint, and outlive the arena") {
  std::vector<std::shared_ptr<std::byte>> pieces;
  index_t const sizes[] = {0, 1, 63, 64, 4096, index_t{20} << 20, 100};
  {
    simd::weight_arena arena;
    for (index_t const size : sizes) pieces.push_back(arena.allocate(size));
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    CHECK(reinterpret_cast<std::uintptr_t>(pieces[i].get()) % 64 == 0);
    bool zero = true;
    for (index_t b = 0; b < sizes[i]; b += 61) zero = zero && pieces[i].get()[b] == std::byte{0};
    CHECK(zero);
    std::memset(pieces[i].get(), static_cast<int>(i + 1), static_cast<std::size_t>(sizes[i]));
  }
  for (std::size_t i = 0; i < pieces.size(); ++i)
    if (sizes[i] > 0) {
      CHECK(pieces[i].get()[0] == static_cast<std::byte>(i + 1));
      CHECK(pieces[i].get()[sizes[i] - 1] == static_cast<std::byte>(i + 1));
    }
  simd::weight_arena arena;
  CHECK_THROWS_AS(static_cast<void>(arena.allocate(-1)), error);
}

}  // namespace simd_weight_arena_test
