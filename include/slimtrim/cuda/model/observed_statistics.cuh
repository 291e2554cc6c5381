// What layer_statistics sums of a window, worked out where the layer ran: routing, experts' outputs and neurons in double
// on the device, cosines and norms of tokens as rows of numbers for the host to add.
#pragma once

#include <slimtrim/cuda/expert_norms.cuh>
#include <slimtrim/cuda/model/decoder_layer.cuh>
#include <slimtrim/cuda/router_statistics.cuh>
#include <slimtrim/cuda/rows.cuh>
#include <slimtrim/statistics/layer_statistics.hpp>

#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// The sums of one column over the rows of one expert, in the order of the rows: of values and squares, or of squares and
// weighted squares.
template <class T>
struct sum_column_of_expert {
  device_matrix<T const> rows;  // in the order of group_pairs
  std::int32_t const* offsets;
  std::int32_t const* pairs;
  float const* weights;  // by pair: plain squares and squares times weight²; null: values and squares
  device_matrix<double> first, second;
  SLIMTRIM_HD void operator()(index_t e, index_t c) const {
    double one = 0, two = 0;
    for (std::int32_t i = offsets[e]; i < offsets[e + 1]; ++i) {
      double const value = static_cast<double>(static_cast<float>(rows(i, c))), square = value * value;
      if (weights != nullptr) {
        double const weight = static_cast<double>(weights[pairs[i]]);
        one += square;
        two += weight * weight * square;
      } else {
        one += value;
        two += square;
      }
    }
    first(e, c) = one;
    second(e, c) = two;
  }
};

struct one_minus {
  float const* values;
  double* to;
  SLIMTRIM_HD void operator()(index_t, index_t i) const { to[i] = 1.0 - static_cast<double>(values[i]); }
};

}  // namespace detail

/// The routing of a window and where its experts' rows stand, kept by experts_watch for those who sum them.
struct routing_on_device {
  device_buffer<float> logits{}, scores{}, weights{};
  device_routing routing{};
  bool seen = false;

  void make_room(index_t tokens, index_t experts, index_t slots) {
    if (logits.size() < tokens * experts) {
      logits = device_buffer<float>(tokens * experts);
      scores = device_buffer<float>(tokens * experts);
    }
    if (weights.size() < tokens * slots) weights = device_buffer<float>(tokens * slots);
  }
};

/// Sums of routed experts from what a layer left in `room`: outputs without their weights, in the order of groups. change:
/// [tokens], 1 - cos of what the experts changed. Waits for the device.
template <half_precision T>
void sum_experts(context& on, device_routing const& routing, moe_layer_view<T> const& view, moe_workspace<T> const& room,
                 device_vector<double const> change, layer_statistics_options const& wanted, layer_sums& out) {
  index_t const experts = routing.experts(), pairs = routing.tokens() * routing.slots();
  router_accumulator router(on, experts);
  router.add(on, routing);
  expert_norm_accumulator norms(on, experts);
  device_matrix<float const> const outputs(room.routed.data(), pairs, view.hidden);
  norms.add(on, routing, room.groups(), columns(outputs, 0, wanted.hidden), output_weight::none, change);
  out.router = router.sums(on);
  out.norms = norms.sums(on);
  auto const columns_of = [&]<class Row>(device_matrix<Row const> rows, float const* weights, index_t width,
                                         std::vector<double>& first, std::vector<double>& second) {
    device_buffer<double> const sums(2 * experts * width);
    device_matrix<double> const one(sums.data(), experts, width), two(sums.data() + experts * width, experts, width);
    for_each_element(on, experts, width, false,
                     detail::sum_column_of_expert<Row>{columns(rows, 0, width), room.groups().offsets, room.groups().pairs,
                                                       weights, one, two});
    first = values_on_host(on.stream(), one.data, experts * width);
    second = values_on_host(on.stream(), two.data, experts * width);
  };
  if (wanted.outputs) {
    out.outputs.emplace();
    out.outputs->count = out.router->count;
    columns_of.template operator()<float>(outputs, nullptr, wanted.hidden, out.outputs->sum, out.outputs->square);
  }
  if (wanted.neurons) {
    out.neurons.emplace();
    device_matrix<T const> const inner(room.activations.data(), pairs, view.width);
    columns_of.template operator()<T>(inner, routing.weights.data, wanted.intermediate, out.neurons->plain,
                                      out.neurons->weighted);
  }
}

/// Cosines and squared norms of the tokens of a window. All: [tokens, hidden]. `change` becomes 1 - cos(residual,
/// block_output), [tokens].
inline void compare_rows(context& on, device_matrix<float const> block_input, device_matrix<float const> residual,
                  device_matrix<float const> moe_input, device_matrix<float const> moe_output,
                  device_matrix<float const> block_output, double* change, similarity_values& out) {
  index_t const n = residual.extent(0);
  auto const values = on.scratch_for<float>(n);
  device_vector<float> const row_values(values.data(), n);
  auto const bring = [&](std::vector<float>& to) {
    to.resize(static_cast<std::size_t>(n));
    copy_to_host(on.stream(), values.data(), n, to.data());
  };
  auto const cosines = [&](device_matrix<float const> a, device_matrix<float const> b, std::vector<float>& to) {
    row_cosines<float, float>(on, a, b, row_values);
    bring(to);
  };
  cosines(block_input, block_output, out.block);
  cosines(block_input, residual, out.attention);
  cosines(moe_input, moe_output, out.moe_without_norm);
  cosines(residual, block_output, out.moe);
  for_each_element(on, 1, n, false, detail::one_minus{values.data(), change});
  row_dots<float>(on, residual, residual, row_values);
  bring(out.residual_square);
  row_dots<float>(on, moe_output, moe_output, row_values);
  bring(out.moe_output_square);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
