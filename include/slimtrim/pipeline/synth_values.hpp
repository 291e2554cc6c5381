// Random weights as a function of seed, tensor name and position: any thread can make any piece, in any order.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/core/float16.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/core/random.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// The random stream of a tensor: FNV-1a of its name (Fowler, Noll, Vo), so that a tensor has the same values in models
/// of different size.
[[nodiscard]] constexpr std::uint64_t name_stream(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (char const c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

namespace detail {

/// Element i is deviation * (b0 + b1 + b2 + b3 - 510) / sqrt(4 (256^2 - 1) / 12) of four random bytes: nearly normal,
/// never farther than 3.45 deviations, and four elements for one block of random words.
inline void fill_random_piece(std::span<bfloat16> out, std::uint64_t first, std::uint64_t seed, std::uint64_t stream,
                              float deviation) {
  constexpr float byte_sum_deviation = 147.801F;
  float const factor = deviation / byte_sum_deviation;
  for (std::size_t at = 0; at < out.size(); at += 4) {
    random_block const block = random_block_at(seed, stream, (first + at) / 4);
    std::size_t const here = std::min<std::size_t>(4, out.size() - at);
    for (std::size_t i = 0; i < here; ++i) {
      std::uint32_t const pairs = (block.word[i] & 0x00ff00ffU) + ((block.word[i] >> 8) & 0x00ff00ffU);
      auto const sum = static_cast<std::int32_t>((pairs & 0xffffU) + (pairs >> 16));
      out[at + i] = bfloat16(static_cast<float>(sum - 510) * factor);
    }
  }
}

}  // namespace detail

/// Fills `out` with elements `first ..` of the tensor whose stream is `stream`: independent, mean 0, standard deviation
/// `deviation`, as bfloat16. `first` must be a multiple of 4. The same for any thread count. About 2 ns an element.
inline void fill_random(executor* run_on, std::span<bfloat16> out, std::uint64_t first, std::uint64_t seed,
                        std::uint64_t stream, float deviation) {
  constexpr index_t piece = 1 << 16;
  auto const size = static_cast<index_t>(out.size());
  parallel_for(run_on, ceil_div(size, piece), [&](index_t i) {
    index_t const begin = i * piece;
    auto const part = out.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(piece, size - begin)));
    detail::fill_random_piece(part, first + static_cast<std::uint64_t>(begin), seed, stream, deviation);
  });
}

}  // namespace v0
}  // namespace slimtrim
