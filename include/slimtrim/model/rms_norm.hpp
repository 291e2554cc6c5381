// Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467), without bias.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// Y[t] = w * X[t] / sqrt(mean_d X[t, d]^2 + epsilon).
///
/// X, Y: [T, D] with contiguous rows, may be the same; weight w: [D]. The mean is formed in double. Deterministic for
/// any executor. Throws `error` when extents disagree. A member `rms_norm` of the backend takes over.
template <tensor_backend B>
void rms_norm(B const& backend, std::type_identity_t<matrix_view<float const, B::memory>> X,
              std::span<float const> weight, double epsilon, std::type_identity_t<matrix_view<float, B::memory>> Y) {
  expects_equal(static_cast<index_t>(weight.size()), X.extent(1), "rms_norm", "length of the weight");
  expects_equal(Y.extent(0), X.extent(0), "rms_norm", "rows of the result");
  expects_equal(Y.extent(1), X.extent(1), "rms_norm", "columns of the result");
  if constexpr (requires { backend.rms_norm(X, weight, epsilon, Y); }) {
    backend.rms_norm(X, weight, epsilon, Y);
  } else {
    static_assert(B::memory == space::host, "rms_norm: this device backend lacks the member rms_norm");
    expects((X.stride(1) == 1 && Y.stride(1) == 1) || X.extent(1) <= 1, "rms_norm", "rows must be contiguous");
    constexpr index_t rows_a_piece = 32, lanes = 8;
    parallel_for(backend.run_on(), ceil_div(X.extent(0), rows_a_piece), [&](index_t piece) {
      index_t const last = std::min(X.extent(0), (piece + 1) * rows_a_piece), n = X.extent(1);
      for (index_t t = piece * rows_a_piece; t < last; ++t) {
        float const* const x = X.data + t * X.stride(0);
        float* const y = Y.data + t * Y.stride(0);
        double sums[lanes] = {};
        index_t i = 0;
        for (; i + lanes <= n; i += lanes)
          for (index_t lane = 0; lane < lanes; ++lane) {
            double const value = static_cast<double>(x[i + lane]);
            sums[lane] += value * value;
          }
        for (; i < n; ++i) sums[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
        double sum = 0;
        for (double const lane : sums) sum += lane;
        float const factor = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(n) + epsilon));
        for (index_t j = 0; j < n; ++j) y[j] = weight[static_cast<std::size_t>(j)] * (x[j] * factor);
      }
    });
  }
}

}  // namespace v0
}  // namespace slimtrim
