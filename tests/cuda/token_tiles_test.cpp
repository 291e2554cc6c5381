#include <doctest/doctest.h>
#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/token_tiles.hpp>

#include <vector>

namespace cuda_token_tiles_test {

using namespace slimtrim;

TEST_CASE("token_tiles: tiles cover every pair once, and never more tiles than were launched") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    int const experts = 1 + static_cast<int>(random_bits_at(seed, 0, 0) % 9), size = seed % 2 == 0 ? 8 : 64;
    std::vector<std::int32_t> offsets{0};
    for (int e = 0; e < experts; ++e) {
      std::uint64_t const dice = random_bits_at(seed, 1, static_cast<std::uint64_t>(e));
      offsets.push_back(offsets.back() + (dice % 3 == 0 ? 0 : static_cast<std::int32_t>(dice / 3 % 150)));
    }
    int const pairs = offsets.back();
    std::vector<int> met(static_cast<std::size_t>(pairs), 0);
    index_t const most = cuda::most_token_tiles(pairs, experts, size);
    for (int tile = 0; tile < most; ++tile) {
      auto const at = cuda::tile_of_tokens(offsets.data(), experts, size, tile);
      if (at.expert < 0) continue;
      CHECK(at.count >= 1);
      CHECK(at.count <= size);
      CHECK(at.first >= offsets[static_cast<std::size_t>(at.expert)]);
      CHECK(at.first + at.count <= offsets[static_cast<std::size_t>(at.expert) + 1]);
      for (int i = 0; i < at.count; ++i) ++met[static_cast<std::size_t>(at.first + i)];
    }
    for (int count : met) REQUIRE(count == 1);
    CHECK(cuda::tile_of_tokens(offsets.data(), experts, size, static_cast<int>(most)).expert == -1);
  }
}

}  // namespace cuda_token_tiles_test
