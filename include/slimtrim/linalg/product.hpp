// The one product of the forward pass: activations times any kind of weight, or times several.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/linalg/weight.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// A backend with its own `product` for weights of any kind, e.g. the packed kernels of simd/.
template <class B>
concept fuses_product = requires(B const& b, matrix_view<float const, B::memory> X, weight_view const& w,
                                 matrix_view<float, B::memory> Y) { b.product(X, w, Y); };

namespace detail {

inline constexpr index_t product_tile_rows = 128;

inline void check_product(matrix_view<float const> X, weight_view const& w, matrix_view<float> Y) {
  expects_equal(X.extent(1), weight_columns(w), "product", "columns of the activations against the weight's");
  expects_equal(Y.extent(0), X.extent(0), "product", "rows of the result");
  expects_equal(Y.extent(1), weight_rows(w), "product", "columns of the result");
}

}  // namespace detail

/// Y = X Wᵀ: Y[t, o] = sum_i X[t, i] W[o, i].
///
/// X: [T, in], W: [out, in] of any kind, Y: [T, out] (overwritten, not aliased with X). A weight that is not float is
/// expanded `product_tile_rows` rows at a time into scratch of the piece that multiplies them (128 * in floats a
/// thread), never as a whole. Accumulates as the backend's gemm. Deterministic for any executor.
/// Throws `error` when extents disagree.
template <host_backend B>
void product(B const& backend, std::type_identity_t<matrix_view<float const>> X, weight_view const& w,
             std::type_identity_t<matrix_view<float>> Y) {
  detail::check_product(X, w, Y);
  index_t const out = weight_rows(w), in = weight_columns(w);
  if (X.extent(0) == 0 || out == 0) return;
  if constexpr (fuses_product<B>) {
    backend.product(X, w, Y);
  } else {
    if (auto const* dense = std::get_if<matrix_view<float const>>(&w)) {
      backend.template gemm<float>(1.0F, X, transposed(*dense), 0.0F, Y);
      return;
    }
    constexpr index_t tile = detail::product_tile_rows;
    parallel_for(backend.run_on(), ceil_div(out, tile), [&](index_t piece) {
      index_t const first = piece * tile, count = std::min(tile, out - first);
      tensor<float, 2> expanded(count, in);
      expand_rows(w, first, expanded.view());
      backend.template gemm<float>(1.0F, X, transposed(as_const(expanded.view())), 0.0F, columns(Y, first, count));
    });
  }
}

/// Several products of the same activations: outputs[i] = X weights[i]ᵀ, each as `product`. A backend with a member
/// `products` makes the activations ready once.
template <host_backend B, std::size_t N>
void products(B const& backend, std::type_identity_t<matrix_view<float const>> X,
              std::array<weight_view const*, N> const& weights, std::array<matrix_view<float>, N> const& outputs) {
  using weights_span = std::span<weight_view const* const>;
  using outputs_span = std::span<matrix_view<float> const>;
  if constexpr (requires { backend.products(X, weights_span(weights), outputs_span(outputs)); }) {
    for (std::size_t i = 0; i < N; ++i) detail::check_product(X, *weights[i], outputs[i]);
    if (X.extent(0) > 0) backend.products(X, weights_span(weights), outputs_span(outputs));
  } else {
    for (std::size_t i = 0; i < N; ++i) product(backend, X, *weights[i], outputs[i]);
  }
}

}  // namespace v0
}  // namespace slimtrim
