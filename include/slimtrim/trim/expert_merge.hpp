// Expert merging: several experts become their weighted average, neuron by neuron, after aligning the neurons.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/linalg/assignment.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>
#include <slimtrim/trim/merge_groups.hpp>

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The three projections of one expert in host memory. gate, up: [width, hidden]; down: [hidden, width]. An expert
/// without a gate has no data there.
struct expert_matrices {
  matrix_view<float const> gate{};
  matrix_view<float const> up{};
  matrix_view<float const> down{};
};

/// Where the neurons of an expert lie in a matrix.
enum class neuron_axis { rows, columns };

/// order[k] = the neuron of `other` that plays the part of neuron k of `kept`.
///
/// Minimises -sum_k [<G_k, G'_o(k)> / |G||G'| + the same for up and for down's columns] exactly; the REAM idea
/// (arXiv 2604.04356) on weights alone, without its activation term. Permuting the neurons of an expert does not change
/// its output. Cost three products [width, hidden] x [hidden, width] and O(width^3); memory 12 width^2 bytes. Throws
/// `error` on different shapes.
template <host_backend B>
[[nodiscard]] std::vector<index_t> align_neurons(B const& backend, expert_matrices const& kept,
                                                 expert_matrices const& other) {
  index_t const width = kept.up.extent(0);
  tensor<double, 2> cost(width, width);
  tensor<float, 2> products(width, width);
  cost.fill(0);
  auto const add = [&](matrix_view<float const> a, matrix_view<float const> b) {
    expects_equal(b.extent(0), a.extent(0), "align_neurons", "rows of the other expert");
    expects_equal(b.extent(1), a.extent(1), "align_neurons", "columns of the other expert");
    expects_equal(a.extent(0), width, "align_neurons", "neurons");
    double a_square = 0, b_square = 0;
    for (index_t i = 0; i < a.extent(0); ++i) {
      a_square += backend.dot(row(a, i), row(a, i));
      b_square += backend.dot(row(b, i), row(b, i));
    }
    double const norms = std::sqrt(a_square) * std::sqrt(b_square);
    if (!(norms > 0)) return;
    backend.gemm(1.0F, a, transposed(b), 0.0F, products.view());
    for (index_t i = 0; i < width; ++i)
      for (index_t j = 0; j < width; ++j) cost(i, j) -= static_cast<double>(products(i, j)) / norms;
  };
  if (kept.gate.data != nullptr) add(kept.gate, other.gate);
  add(kept.up, other.up);
  add(transposed(kept.down), transposed(other.down));
  return assignment(cost.view());
}

/// out = sum_m weights[m] members[m], with the neurons of member m taken in the order orders[m] (empty: as they are).
///
/// members, out: one shape, in host memory; `axis` says whether neurons are rows (gate, up) or columns (down). weights
/// add up to 1 (`merge_group`). Added in double in the order of the members, rounded once. Throws `error` on different
/// shapes.
inline void average_experts(std::span<matrix_view<float const> const> members, std::span<double const> weights,
                            std::span<std::vector<index_t> const> orders, neuron_axis axis, matrix_view<float> out) {
  expects(!members.empty(), "average_experts", "members: expected at least one");
  expects(weights.size() == members.size() && orders.size() == members.size(), "average_experts",
          "weights, orders: expected one a member");
  index_t const neurons = out.extent(axis == neuron_axis::rows ? 0 : 1);
  for (std::size_t m = 0; m < members.size(); ++m) {
    expects_equal(members[m].extent(0), out.extent(0), "average_experts", "rows of a member");
    expects_equal(members[m].extent(1), out.extent(1), "average_experts", "columns of a member");
    expects(orders[m].empty() || static_cast<index_t>(orders[m].size()) == neurons, "average_experts",
            "orders: expected one entry a neuron");
  }
  for (index_t r = 0; r < out.extent(0); ++r)
    for (index_t c = 0; c < out.extent(1); ++c) {
      double sum = 0;
      for (std::size_t m = 0; m < members.size(); ++m) {
        auto const& order = orders[m];
        index_t const row_at = axis == neuron_axis::rows && !order.empty() ? order[static_cast<std::size_t>(r)] : r;
        index_t const column_at =
            axis == neuron_axis::columns && !order.empty() ? order[static_cast<std::size_t>(c)] : c;
        sum += weights[m] * static_cast<double>(members[m](row_at, column_at));
      }
      out(r, c) = static_cast<float>(sum);
    }
}

}  // namespace v0
}  // namespace slimtrim
