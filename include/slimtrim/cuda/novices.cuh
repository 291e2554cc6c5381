// Experts that are one constant vector each (MoNE, arXiv 2507.00390): added for the tokens that chose them.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/elementwise.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

struct add_novice {
  std::int32_t const* indices;
  float const* factors;
  index_t slots;
  device_matrix<float const> novices;
  device_matrix<float> Y;
  SLIMTRIM_HD void operator()(index_t t, index_t c) const {
    float sum = Y(t, c);
    for (index_t s = 0; s < slots; ++s) {
      index_t const expert = indices[t * slots + s];
      if (expert >= 0) sum += factors[t * slots + s] * novices(expert, c);
    }
    Y(t, c) = sum;
  }
};

}  // namespace detail

/// Y[t] += sum over slots of factor * novices[chosen expert], in the order of slots. indices, factors: [T, slots] in
/// device memory, as routing left them; novices: [experts, hidden], zero for experts that are none.
inline void add_novices(context& on, std::int32_t const* indices, float const* factors, index_t slots,
                        device_matrix<float const> novices, device_matrix<float> Y) {
  expects_equal(novices.extent(1), Y.extent(1), "cuda::add_novices", "columns of the result");
  for_each_element(on, Y.extent(0), Y.extent(1), false, detail::add_novice{indices, factors, slots, novices, Y});
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
