// Weights that read one input, one under the other: what methods that steer by the Hessian of that input share.
#pragma once

#include <slimtrim/cuda/blas.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/hessian.cuh>
#include <slimtrim/cuda/rows.cuh>
#include <slimtrim/tensor/subview.hpp>

#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {
namespace detail {

// What all problems of a call have in common: rows of the stacked weights, and columns.
struct stack_shape {
  index_t problems = 0, rows = 0, columns = 0;
};

// The shape of problems, each with `weights` over T and their `hessian`. Throws `error` where shapes differ, `input_error` for a weight
// that is not finite. There is at least one problem.
template <class T, class Problem>
[[nodiscard]] stack_shape shape_of_stacks(context& on, std::vector<Problem> const& problems, char const* where) {
  expects(!problems[0].weights.empty(), where, "weights: expected at least one");
  stack_shape shape{static_cast<index_t>(problems.size()), 0, problems[0].weights[0].extent(1)};
  for (auto const& W : problems[0].weights) shape.rows += W.extent(0);
  for (auto const& problem : problems) {
    index_t stacked = 0;
    for (auto const& W : problem.weights) {
      expects_equal(W.extent(1), shape.columns, where, "columns of a weight");
      stacked += W.extent(0);
      expect_finite<T>(on, W, where);
    }
    expects_equal(stacked, shape.rows, where, "rows of the stacked weights");
    expects_equal(problem.hessian.extent(0), shape.columns, where, "rows of the Hessian");
  }
  return shape;
}

// weights[order[j]] = 1 / R_jj², group_of[j] = group of that column.
struct weigh_columns {
  device_matrix<float const> R;
  std::int32_t const* order;
  index_t group;
  float* weights;
  std::int32_t* group_of;
  SLIMTRIM_HD void operator()(index_t j, index_t) const {
    float const pivot = R(j, j);
    weights[order[j]] = 1.0F / (pivot * pivot);
    group_of[j] = static_cast<std::int32_t>(order[j] / group);
  }
};

// error[r] = d_r H d_rᵀ for every row of a stack, 2048 rows at a time; `difference(W, row, D)` enqueues D = changed - W for rows of one
// weight, the first of which is `row` of the stack.
template <class T, class F>
void stack_errors(context& on, std::vector<device_matrix<T const>> const& weights, device_matrix<float const> H,
                  F const& difference, device_vector<float> error) {
  constexpr index_t strip = 2048;
  index_t const c = H.extent(0), most = error.extent(0) < strip ? error.extent(0) : strip;
  auto const differences = on.scratch_for<float>(most * c), products = on.scratch_for<float>(most * c);
  index_t base = 0;
  for (auto const& W : weights) {
    for (index_t first = 0; first < W.extent(0); first += strip) {
      index_t const n = W.extent(0) - first < strip ? W.extent(0) - first : strip;
      device_matrix<float> const D(differences.data(), n, c), P(products.data(), n, c);
      difference(slimtrim::rows(W, first, n), base + first, D);
      gemm<float, float>(on, 1.0F, as_const(D), H, 0.0F, P);
      row_dots<float>(on, as_const(D), as_const(P), slice(error, 0, base + first, n));
    }
    base += W.extent(0);
  }
}

}  // namespace detail
}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
