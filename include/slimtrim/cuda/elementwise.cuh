// One kernel for everything that visits each element of a matrix once: copies between layouts, mirrors, conversions.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/core/numeric.hpp>
#include <slimtrim/cuda/context.cuh>

#include <cstddef>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

inline constexpr unsigned elementwise_threads = 256;

// A thread owns one element: fast index by thread, the other by grid, so that neighbours touch neighbours.
template <class F>
__global__ void __launch_bounds__(elementwise_threads)
    visit_elements(index_t slow, index_t fast, bool rows_fast, F visit) {
  index_t const count = slow * fast, step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t at = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += step) {
    // Most matrices have fewer than 2^32 elements, and a division of 64 bits costs several times one of 32.
    index_t const s = count <= 0xffffffffLL
                          ? static_cast<index_t>(static_cast<std::uint32_t>(at) / static_cast<std::uint32_t>(fast))
                          : at / fast;
    index_t const f = at - s * fast;
    rows_fast ? visit(f, s) : visit(s, f);
  }
}

template <class From, class To>
struct convert_element {
  device_matrix<From const> from;
  device_matrix<To> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = static_cast<To>(from(i, j)); }
};

[[nodiscard]] constexpr index_t magnitude(index_t x) { return x < 0 ? -x : x; }

}  // namespace detail

/// visit(i, j) for every element of an [n, m] matrix, in no order; `rows_fast`: neighbouring threads take neighbouring
/// i. `visit` is a named type with a SLIMTRIM_HD call operator.
template <class F>
void for_each_element(context& on, index_t n, index_t m, bool rows_fast, F const& visit) {
  index_t const needed = ceil_div(n * m, detail::elementwise_threads), most = 32 * on.multiprocessors();
  launch(on.stream(), {dim3(blocks_for(needed < most ? needed : most)), detail::elementwise_threads, 0},
         detail::visit_elements<F>, rows_fast ? m : n, rows_fast ? n : m, rows_fast, visit);
}

/// to(i, j) = from(i, j), converted. Any strides; broadcast inputs allowed. One read and one write an element.
template <class From, class To>
void copy_elements(context& on, device_matrix<From const> from, device_matrix<To> to) {
  bool const rows_fast = detail::magnitude(to.stride(0)) < detail::magnitude(to.stride(1));
  for_each_element(on, to.extent(0), to.extent(1), rows_fast, detail::convert_element<From, To>{from, to});
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
