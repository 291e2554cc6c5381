// The elementwise functions of the forward pass, written so that compilers vectorise them.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/config.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// exp(x) in float arithmetic without branches: 2^n times the Taylor polynomial of degree 7 of exp(x - n ln 2), with
/// |x - n ln 2| <= ln 2 / 2. Relative error below 3e-7. Arguments are clamped to [-87, 88], so the result is never zero
/// and never infinite; NaN stays NaN.
[[nodiscard]] constexpr float exp_float(float x) {
  x = x > 88.0F ? 88.0F : x;
  x = x < -87.0F ? -87.0F : x;
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
  float const shifted = x * 1.44269504F + 12582912.0F;
  float const n = shifted - 12582912.0F;
  float const r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  float p = 1.0F / 5040;
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  std::uint32_t const exponent = (bits_as<std::uint32_t>(shifted) - 0x4B400000U + 127U) << 23;
  return p * bits_as<float>(exponent);
}

/// silu(x) = x / (1 + exp(-x)), the activation of SwiGLU (arXiv 2002.05202).
[[nodiscard]] constexpr float silu(float x) { return x / (1.0F + exp_float(-x)); }

/// G = silu(G) * U, element by element. G, U: [n, F] with contiguous rows. Deterministic for any executor.
/// A member `silu_multiply` of the backend takes over.
template <tensor_backend B>
void silu_multiply(B const& backend, matrix_view<float, B::memory> G,
                   std::type_identity_t<matrix_view<float const, B::memory>> U) {
  expects_equal(U.extent(0), G.extent(0), "silu_multiply", "rows");
  expects_equal(U.extent(1), G.extent(1), "silu_multiply", "columns");
  if constexpr (requires { backend.silu_multiply(G, U); }) {
    backend.silu_multiply(G, U);
  } else {
    static_assert(B::memory == space::host, "silu_multiply: this device backend lacks the member silu_multiply");
    expects((G.stride(1) == 1 && U.stride(1) == 1) || G.extent(1) <= 1, "silu_multiply", "rows must be contiguous");
    constexpr index_t rows_a_piece = 16;
    parallel_for(backend.run_on(), ceil_div(G.extent(0), rows_a_piece), [&](index_t piece) {
      index_t const last = std::min(G.extent(0), (piece + 1) * rows_a_piece), n = G.extent(1);
      for (index_t i = piece * rows_a_piece; i < last; ++i) {
        float* const g = G.data + i * G.stride(0);
        float const* const u = U.data + i * U.stride(0);
        for (index_t j = 0; j < n; ++j) g[j] = silu(g[j]) * u[j];
      }
    });
  }
}

}  // namespace v0
}  // namespace slimtrim
