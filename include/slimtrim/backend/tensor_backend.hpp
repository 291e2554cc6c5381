// Who computes? A backend object, passed first: `cosine_similarity(backend, x, y)`.
//
// The concept below is the small set of primitives that every algorithm of the library is written over. A backend
// that has a member with an algorithm's own name takes that algorithm over (`if constexpr`), which is how SIMD and
// CUDA specialise hot loops; everything else keeps working on the primitives.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/core/memory_space.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// The primitives, for T = float and T = double; every operand lives in `B::memory`.
///
/// | member                             | result                                                        | shapes                     |
/// |------------------------------------|---------------------------------------------------------------|----------------------------|
/// | dot(x, y)                          | sum_i x_i y_i, returned (synchronises on a device)            | x, y: [n]                  |
/// | row_dots(X, Y, out)                | out_i = sum_j X_ij Y_ij                                       | X, Y: [n, m]; out: [n]     |
/// | column_square_sums(X, out)         | out_j = sum_i X_ij^2                                          | X: [n, m]; out: [m]        |
/// | gemm(alpha, A, B, beta, C)         | C = alpha A B + beta C; beta = 0 does not read C              | A: [n, k]; B: [k, m]       |
/// | gram_update(alpha, X, H)           | H += alpha Xᵀ X, both triangles, exactly symmetric            | X: [n, m]; H: [m, m]       |
/// | inverse_factor(H, R)               | upper R with H⁻¹ = Rᵀ R; false when H is not positive definite| H, R: [m, m], not aliased  |
/// | solve_positive_definite(H, B)      | B = H⁻¹ B in place, H overwritten; false when not pos. def.   | H: [m, m]; B: [m, p]       |
/// | top_k(X, indices)                  | per row the k largest, descending, ties to the lower index,   | X: [n, m]; indices: [n, k] |
/// |                                    | NaN last                                                      |                            |
/// | run_on()                           | the executor for host pieces, or null                         |                            |
///
/// Views may be strided in any way. Sums are formed in at least accumulator_t, in an order that does not depend on
/// the number of threads. Extents are checked by the algorithms above, not by the primitives.
template <class B>
concept tensor_backend = requires(B const& b, vector_view<float const, B::memory> x, vector_view<float, B::memory> y,
                                  matrix_view<float const, B::memory> A, matrix_view<float, B::memory> C,
                                  matrix_view<std::int32_t, B::memory> indices) {
  { B::memory } -> std::convertible_to<space>;
  { b.dot(x, x) } -> std::convertible_to<double>;
  b.row_dots(A, A, y);
  b.column_square_sums(A, y);
  b.gemm(1.0F, A, A, 0.0F, C);
  b.gram_update(1.0F, A, C);
  { b.inverse_factor(A, C) } -> std::convertible_to<bool>;
  { b.solve_positive_definite(C, C) } -> std::convertible_to<bool>;
  b.top_k(A, indices);
  { b.run_on() } -> std::convertible_to<executor*>;
};

/// A backend whose memory a host loop may touch.
template <class B>
concept host_backend = tensor_backend<B> && B::memory == space::host;

/// Whether a view of type View lives where backend B can reach it.
template <class B, class View>
inline constexpr bool reaches = B::memory == View::memory;

/// The backend of the short forms, `cosine_similarity(x, y)`. Declared here and defined only in backend/eigen.hpp (host)
/// and cuda/backend.cuh (device), so that no two translation units can disagree: if the compiler calls it incomplete,
/// include that header or pass a backend.
template <space Space>
struct default_backend;

}  // namespace v0
}  // namespace slimtrim
