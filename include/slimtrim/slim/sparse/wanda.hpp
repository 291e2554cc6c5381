// Wanda: the importance of a weight is its size times the norm of its input; each output row prunes its own share.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>
#include <slimtrim/slim/sparse/mask.hpp>
#include <slimtrim/tensor/adapt.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

// Input norms for scoring: the square roots of the second moments, divided by their largest so that products with weights
// stay finite; ones where there is nothing to weigh by, so that an expert without tokens is pruned by magnitude.
inline buffer<float> scoring_norms(vector_view<float const> second_moments) {
  index_t const c = second_moments.extent(0);
  double largest = 0;
  bool finite = true;
  for (index_t j = 0; j < c; ++j) {
    finite = finite && std::isfinite(second_moments(j));
    largest = std::max(largest, static_cast<double>(second_moments(j)));
  }
  buffer<float> norms(c, 1.0F);
  if (!finite || !(largest > 0)) return norms;
  for (index_t j = 0; j < c; ++j)
    norms[j] = static_cast<float>(std::sqrt(std::max(0.0, static_cast<double>(second_moments(j))) / largest));
  return norms;
}

}  // namespace detail

/// S_ij = |W_ij| ||X_j||₂; per output row the lowest scores are pruned, or all but N of every M inputs.
///
/// (Sun, Liu, Bair, Kolter 2023, arXiv 2306.11695, eq. 1.) W: [out, in], float, bfloat16 or float16. second_moments: [in], ||X_j||₂² (the
/// diagonal of the Hessian; any positive factor). With moments weighted by the squared gate, sum of (g x_j)², this is the
/// router-weighted score of MoE-Pruner (arXiv 2410.12013). floor(rate in) of each row are pruned; ties keep the lower index.
/// Moments that are all zero or not finite (an expert without tokens) leave |W|. Throws `input_error` naming the first NaN or Inf of W,
/// `error` for shapes. Cost O(out in); scratch one row a thread. Byte-identical for any executor.
template <host_backend B, matrix_like M>
[[nodiscard]] mask wanda_mask(B const& backend, M&& weight, vector_view<float const> second_moments, sparsity const& pattern) {
  auto const W = as_const_matrix(weight);
  using T = typename std::remove_cvref_t<decltype(W)>::value_type;
  pattern.check();
  expects_equal(second_moments.extent(0), W.extent(1), "wanda_mask", "second moments");
  if constexpr (requires { backend.wanda_mask(W, second_moments, pattern); }) {
    return backend.wanda_mask(W, second_moments, pattern);
  } else {
    index_t const n = W.extent(0), c = W.extent(1);
    buffer<float> const norms = detail::scoring_norms(second_moments);
    mask out(n, c);
    std::vector<char> finite(static_cast<std::size_t>(ceil_div(n, 16)), 1);
    parallel_for(backend.run_on(), ceil_div(n, 16), [&](index_t piece) {
      buffer<float> scores(c);
      std::vector<std::uint64_t> keys;
      for (index_t r = piece * 16; r < std::min(n, (piece + 1) * 16); ++r) {
        detail::gather_row<T>(row(W, r), scores.data());
        if (detail::largest_magnitude_bits(scores.data(), c) >= 0x7f800000U) {
          finite[static_cast<std::size_t>(piece)] = 0;
          return;
        }
        for (index_t j = 0; j < c; ++j) scores[j] = std::fabs(scores[j]) * norms[j];
        detail::mask_row(scores.data(), r, pattern, out, keys);
      }
    });
    if (std::find(finite.begin(), finite.end(), 0) != finite.end()) detail::name_non_finite<T>(W, "wanda_mask");
    return out;
  }
}

}  // namespace v0
}  // namespace slimtrim
