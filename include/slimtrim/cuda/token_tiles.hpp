// Which expert and which of its tokens a block of a grouped product serves: a function of the offsets alone, so that the
// grid can be launched before anybody on the host knows how tokens were routed.
#pragma once

#include <slimtrim/core/index.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Some tokens of one expert; `expert` < 0: nothing to do.
struct token_tile {
  int expert = -1;
  int first = 0;  // position in the list of pairs
  int count = 0;
};

/// The most tiles of `tile_tokens` pairs that `pairs` pairs over `experts` experts can need.
[[nodiscard]] SLIMTRIM_HD constexpr index_t most_token_tiles(index_t pairs, index_t experts, index_t tile_tokens) {
  index_t const begun = pairs < experts ? pairs : experts;  // each expert with tokens begins one tile
  return begun + (pairs - begun) / tile_tokens;
}

/// Tile number `tile` of all tiles, experts in ascending order. offsets: [experts + 1], as of group_by_expert.
[[nodiscard]] SLIMTRIM_HD constexpr token_tile tile_of_tokens(std::int32_t const* offsets, int experts, int tile_tokens,
                                                              int tile) {
  for (int e = 0; e < experts; ++e) {
    int const first = offsets[e], count = offsets[e + 1] - first;
    int const tiles = (count + tile_tokens - 1) / tile_tokens;
    if (tile < tiles) {
      int const begin = tile * tile_tokens, rest = count - begin;
      return {e, first + begin, rest < tile_tokens ? rest : tile_tokens};
    }
    tile -= tiles;
  }
  return {};
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
