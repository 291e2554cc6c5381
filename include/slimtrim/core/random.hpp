// Counter-based random numbers: value = f(seed, stream, index), with no state to share or to order.
//
// Any element can be made by any thread at any time, so results do not depend on scheduling.
#pragma once

#include <slimtrim/core/config.hpp>

#include <cmath>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// Four 32-bit words of Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
struct random_block {
  std::uint32_t word[4];
};

/// Philox4x32-10 of the 128-bit counter (index, stream) under the 64-bit key `seed`.
[[nodiscard]] SLIMTRIM_HD constexpr random_block random_block_at(std::uint64_t seed, std::uint64_t stream,
                                                                 std::uint64_t index) {
  std::uint32_t c0 = static_cast<std::uint32_t>(index), c1 = static_cast<std::uint32_t>(index >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(stream), c3 = static_cast<std::uint32_t>(stream >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const p0 = std::uint64_t{0xD2511F53U} * c0;
    std::uint64_t const p1 = std::uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {{c0, c1, c2, c3}};
}

/// 64 uniform random bits.
[[nodiscard]] SLIMTRIM_HD constexpr std::uint64_t random_bits_at(std::uint64_t seed, std::uint64_t stream,
                                                                 std::uint64_t index) {
  random_block const block = random_block_at(seed, stream, index);
  return (std::uint64_t{block.word[1]} << 32) | block.word[0];
}

/// Uniform in [0, 1), a multiple of 2^-53.
[[nodiscard]] SLIMTRIM_HD constexpr double uniform_at(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  return static_cast<double>(random_bits_at(seed, stream, index) >> 11) * 0x1.0p-53;
}

/// Standard normal by Box-Muller: sqrt(-2 ln u) cos(2 pi v), u in (0, 1].
[[nodiscard]] inline double normal_at(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  random_block const block = random_block_at(seed, stream, index);
  double const u = (static_cast<double>(block.word[0]) + 1.0) * 0x1.0p-32;
  double const v = static_cast<double>(block.word[1]) * 0x1.0p-32;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * v);
}

}  // namespace v0
}  // namespace slimtrim
