// SwiGLU feed-forward (Shazeer 2020, arXiv 2002.05202): dense layers, shared experts and routed experts alike.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/linalg/product.hpp>
#include <slimtrim/model/decoder_layer.hpp>
#include <slimtrim/model/elementwise.hpp>
#include <slimtrim/model/workspace.hpp>

#include <array>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// Y = down(silu(X gateᵀ) * (X upᵀ)); `on_hidden(H)` sees the activated hidden values H: [n, width] before the last
/// product. X, Y: [n, hidden]. Uses `gate` and `up` of the workspace. Deterministic for any executor.
template <host_backend B, class OnHidden>
void swiglu(B const& backend, std::type_identity_t<matrix_view<float const>> X, swiglu_weights const& weights,
            std::type_identity_t<matrix_view<float>> Y, forward_workspace& work, OnHidden&& on_hidden) {
  index_t const n = X.extent(0), width = weights.width();
  auto const G = work.gate.shape(n, width);
  auto const U = work.up.shape(n, width);
  products(backend, X, std::array{&weights.gate.view, &weights.up.view}, std::array{G, U});
  silu_multiply(backend, G, U);
  on_hidden(as_const(G));
  product(backend, G, weights.down.view, Y);
}

}  // namespace v0
}  // namespace slimtrim
