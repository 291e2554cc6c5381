// The factor of an inverse in single precision, for matrices that are damped: twice the speed of the primitive, which works
// in double.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>

namespace slimtrim {
inline namespace v0 {

/// Upper triangular R with H⁻¹ = Rᵀ R, by reversed Cholesky H = U Uᵀ and R = U⁻¹, in blocks of 128 columns from the last to
/// the first. Returns false, with R unspecified, when a pivot is not positive and finite.
///
/// H, R: [m, m], not aliased; only the upper triangle of H is read. Products in float by `backend.gemm`, diagonal blocks in double. Error of
/// R H Rᵀ - I: about sqrt(m) 6e-8 times the condition number; meant for damped Hessians (condition up to 1e5). Cost
/// (2/3) m³ multiply-adds; scratch m² + 256 m floats. Byte-identical for any executor.
template <host_backend B>
[[nodiscard]] bool inverse_factor_single(B const& backend, matrix_view<float const> H, matrix_view<float> R) {
  constexpr index_t block = 128, strip = 256;
  index_t const m = H.extent(0);
  expects_equal(H.extent(1), m, "inverse_factor_single", "columns of a square matrix");
  expects_equal(R.extent(0), m, "inverse_factor_single", "rows of the factor");
  expects_equal(R.extent(1), m, "inverse_factor_single", "columns of the factor");
  matrix<float> factor(m, m), scratch(std::max(m, strip), block);
  auto const U = factor.view();
  parallel_for(backend.run_on(), ceil_div(m, strip), [&](index_t piece) {
    for (index_t i = piece * strip; i < std::min(m, (piece + 1) * strip); ++i)
      for (index_t j = 0; j < m; ++j) {
        U(i, j) = i <= j ? H(i, j) : 0.0F;
        R(i, j) = 0.0F;
      }
  });
  buffer<double> D(block * block), inverse(block * block);
  for (index_t end = m; end > 0;) {
    index_t const begin = (end - 1) / block * block, width = end - begin;
    if (end < m) {
      auto const behind = as_const(columns(U, end, m - end));
      backend.gemm(-1.0F, rows(behind, 0, end), transposed(rows(behind, begin, width)), 1.0F,
                   columns(rows(U, 0, end), begin, width));
    }
    // The diagonal block: factor and inverse, in double.
    auto const d = [&](index_t i, index_t j) -> double& { return D[i * block + j]; };
    auto const v = [&](index_t i, index_t j) -> double& { return inverse[i * block + j]; };
    for (index_t j = width - 1; j >= 0; --j) {
      double pivot = static_cast<double>(U(begin + j, begin + j));
      for (index_t k = j + 1; k < width; ++k) pivot -= d(j, k) * d(j, k);
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      d(j, j) = std::sqrt(pivot);
      for (index_t i = 0; i < j; ++i) {
        double sum = static_cast<double>(U(begin + i, begin + j));
        for (index_t k = j + 1; k < width; ++k) sum -= d(i, k) * d(j, k);
        d(i, j) = sum / d(j, j);
      }
    }
    for (index_t i = width - 1; i >= 0; --i)
      for (index_t j = 0; j < width; ++j) {
        double sum = i == j ? 1.0 : 0.0;
        for (index_t k = i + 1; k <= j; ++k) sum -= d(i, k) * v(k, j);
        v(i, j) = j < i ? 0.0 : sum / d(i, i);
      }
    for (index_t i = 0; i < width; ++i)
      for (index_t j = 0; j < width; ++j) {
        U(begin + i, begin + j) = i <= j ? static_cast<float>(d(i, j)) : 0.0F;
        R(begin + i, begin + j) = i <= j ? static_cast<float>(v(i, j)) : 0.0F;
      }
    auto const diagonal_inverse = as_const(columns(rows(R, begin, width), begin, width));
    // Above the block: U_ib = S_ib D⁻ᵀ.
    if (begin > 0) {
      auto const above = columns(rows(U, 0, begin), begin, width), copy = columns(rows(scratch.view(), 0, begin), 0, width);
      for (index_t i = 0; i < begin; ++i)
        for (index_t j = 0; j < width; ++j) copy(i, j) = above(i, j);
      backend.gemm(1.0F, as_const(copy), transposed(diagonal_inverse), 0.0F, above);
    }
    // To the right: R_b,right = -D⁻¹ (U_b,right R_right), strip by strip, each using only the rows where R is not zero.
    parallel_for(backend.run_on(), ceil_div(m - end, strip), [&](index_t piece) {
      index_t const first = piece * strip, w = std::min(strip, m - end - first);
      matrix<float> middle(width, w);
      backend.gemm(1.0F, as_const(columns(rows(U, begin, width), end, first + w)),
                   as_const(columns(rows(R, end, first + w), end + first, w)), 0.0F, middle.view());
      backend.gemm(-1.0F, diagonal_inverse, as_const(middle.view()), 0.0F, columns(rows(R, begin, width), end + first, w));
    });
    end = begin;
  }
  return true;
}

}  // namespace v0
}  // namespace slimtrim
