// Magnitude pruning: the smallest weights go. Needs no data; the baseline of every other criterion.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>
#include <slimtrim/slim/sparse/mask.hpp>
#include <slimtrim/slim/sparse/wanda.hpp>
#include <slimtrim/tensor/adapt.hpp>

#include <cmath>
#include <type_traits>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Keeps the largest |W_ij|: of the whole matrix for an unstructured rate, of every M inputs of a row for N:M.
///
/// W: [out, in], float, bfloat16 or float16. floor(rate out in) elements are pruned. Ties keep the lower (row-major)
/// index. Throws `input_error` naming the first NaN or Inf. Cost O(out in); scratch 12 bytes an element for an
/// unstructured rate.
template <host_backend B, matrix_like M>
[[nodiscard]] mask magnitude_mask(B const& backend, M&& weight, sparsity const& pattern) {
  auto const W = as_const_matrix(weight);
  using T = typename std::remove_cvref_t<decltype(W)>::value_type;
  pattern.check();
  detail::name_non_finite<T>(W, "magnitude_mask");
  index_t const n = W.extent(0), c = W.extent(1);
  if (pattern.structured()) {
    buffer<float> const ones(c, 1.0F);
    return wanda_mask(backend, W, vector_view<float const>(ones.data(), c), pattern);
  }
  mask out(n, c);
  buffer<float> scores(n * c);
  for (index_t r = 0; r < n; ++r)
    for (index_t j = 0; j < c; ++j) scores[r * c + j] = std::fabs(static_cast<float>(W(r, j)));
  std::vector<std::uint64_t> keys;
  // The index in the key has 32 bits; a larger matrix is cut by rows, each part with its own share.
  index_t const rows_a_part = c > 0 ? std::max<index_t>(1, (index_t{1} << 31) / c) : n;
  for (index_t first = 0; first < n; first += rows_a_part) {
    index_t const height = std::min(rows_a_part, n - first);
    detail::drop_lowest(scores.data() + first * c, height * c, pattern.pruned_of(height * c), keys,
                        [&](index_t i) { out.set(first + i / c, i % c, false); });
  }
  return out;
}

}  // namespace v0
}  // namespace slimtrim
