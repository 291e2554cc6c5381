#include <doctest/doctest.h>
#include <slimtrim/simd/target/tile.hpp>

#include <vector>

namespace simd_target_tile_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

TEST_CASE("a tile of whole numbers is exact for every number of tokens, and adds to what is there") {
  constexpr index_t depth = 33, width = 2 * target::lanes;
  std::vector<float> panel(static_cast<std::size_t>(depth * width));
  for (std::size_t i = 0; i < panel.size(); ++i) panel[i] = static_cast<float>(static_cast<int>(i % 13) - 6);
  for (index_t tokens = 1; tokens <= simd::tile_tokens; ++tokens) {
    std::vector<float> x(static_cast<std::size_t>(depth * tokens)), out(static_cast<std::size_t>(tokens * width), 7.0F);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i % 7) - 3);
    target::multiply_tile(panel.data(), x.data(), depth, tokens, true, out.data(), width);
    for (index_t t = 0; t < tokens; ++t)
      for (index_t r = 0; r < width; ++r) {
        float sum = 7;
        for (index_t k = 0; k < depth; ++k)
          sum += x[static_cast<std::size_t>(k * tokens + t)] * panel[static_cast<std::size_t>(k * width + r)];
        CHECK(out[static_cast<std::size_t>(t * width + r)] == sum);
      }
  }
}

}  // namespace simd_target_tile_test
