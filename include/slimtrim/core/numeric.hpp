// Which scalar types a tensor may store, and in which type each is added up.
#pragma once

#include <slimtrim/core/float16.hpp>
#include <slimtrim/core/float8.hpp>
#include <slimtrim/core/index.hpp>

#include <concepts>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// Real scalars that a weight or activation tensor may hold.
template <class T>
concept real_scalar = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bfloat16> ||
                      std::same_as<T, float16> || std::same_as<T, float8_e4m3>;

/// The type in which sums over T are formed by fast backends: float for all storage types, double for double.
/// The reference backend always adds in double.
template <class T>
using accumulator_t = std::conditional_t<std::same_as<std::remove_cv_t<T>, double>, double, float>;

/// The value of a stored scalar as its accumulator type; exact.
template <real_scalar T>
[[nodiscard]] SLIMTRIM_HD constexpr accumulator_t<T> widen(T value) {
  return static_cast<accumulator_t<T>>(value);
}

/// A float rounded to the storage type T, to nearest, ties to even.
template <real_scalar T>
[[nodiscard]] SLIMTRIM_HD constexpr T narrow_to(float value) {
  return static_cast<T>(value);
}

}  // namespace v0
}  // namespace slimtrim
