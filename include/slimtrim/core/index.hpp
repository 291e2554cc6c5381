// The signed index type of every extent and stride, and arithmetic on it that cannot wrap.
#pragma once

#include <slimtrim/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace slimtrim {
inline namespace v0 {

/// Extents, strides and element counts. Signed, so that differences are safe.
using index_t = std::ptrdiff_t;

/// ceil(a / b) for a >= 0, b > 0.
[[nodiscard]] SLIMTRIM_HD constexpr index_t ceil_div(index_t a, index_t b) { return a / b + (a % b != 0 ? 1 : 0); }

/// The smallest multiple of `b` that is not below `a`, for a >= 0, b > 0.
[[nodiscard]] SLIMTRIM_HD constexpr index_t round_up(index_t a, index_t b) { return ceil_div(a, b) * b; }

/// a * b, or nothing when the product does not fit in 64 bits. For every size that comes from a file.
[[nodiscard]] constexpr std::optional<std::uint64_t> checked_multiply(std::uint64_t a, std::uint64_t b) {
  if (b != 0 && a > UINT64_MAX / b) return std::nullopt;
  return a * b;
}

/// a + b, or nothing when the sum does not fit in 64 bits.
[[nodiscard]] constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  if (a > UINT64_MAX - b) return std::nullopt;
  return a + b;
}

}  // namespace v0
}  // namespace slimtrim
