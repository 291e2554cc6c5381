// Angular distance: a metric where cosine similarity is not one.
#pragma once

#include <slimtrim/similarity/cosine.hpp>

#include <cmath>

namespace slimtrim {
inline namespace v0 {

/// The angle that a cosine stands for, in units of pi: d = acos(c) / pi, in [0, 1]; 0 for the same direction.
///
/// Gromov et al., arXiv 2403.17887, eq. 6. `cosine` outside [-1, 1] is clamped.
[[nodiscard]] inline double angular_distance(double cosine) {
  constexpr double pi = 3.14159265358979323846;
  double const clamped = cosine > 1 ? 1.0 : (cosine < -1 ? -1.0 : cosine);
  return std::acos(clamped) / pi;
}

/// d(x, y) = acos(cos(x, y)) / pi. x, y: [n]. A zero vector is at 1/2 from everything. Errors as `cosine_similarity`.
template <tensor_backend B, vector_like X, vector_like Y>
[[nodiscard]] double angular_distance(B const& backend, X&& x, Y&& y) {
  return angular_distance(cosine_similarity(backend, x, y));
}

/// The same on `default_backend`.
template <vector_like X, vector_like Y>
[[nodiscard]] double angular_distance(X&& x, Y&& y) {
  return angular_distance(cosine_similarity(x, y));
}

}  // namespace v0
}  // namespace slimtrim
