// What a mixture-of-experts layer is made of on the device, and the memory that it works in.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/group.cuh>
#include <slimtrim/cuda/tile_weight.hpp>
#include <slimtrim/router/routing_rule.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// A layer's weights. gate_up, down: one view an expert, the views themselves in device memory; all experts of a layer have
/// one shape and kind. gate_up: [2 width, hidden], gate and up rows in turns (tile_weight.hpp); down: [hidden, width].
template <half_precision T>
struct moe_layer_view {
  routing_rule rule{};
  index_t experts = 0;
  index_t hidden = 0;
  index_t width = 0;
  device_matrix<T const> router{};                ///< [experts, hidden]
  device_vector<float const> selection_bias{};    ///< [experts], exactly when the rule has one
  device_vector<std::uint8_t const> kept{};       ///< [experts], 0: treated as removed; or no data
  tile_weight_view const* gate_up = nullptr;
  tile_weight_view const* down = nullptr;
};

/// Scratch of moe_layer for up to `tokens` tokens: made once, used by any number of layers one after another on one stream.
template <half_precision T>
struct moe_workspace {
  index_t pairs = 0, experts = 0, width = 0, hidden = 0;
  device_buffer<std::int32_t> indices{};
  device_buffer<float> factors{};
  device_buffer<std::int32_t> group_words{};
  device_buffer<T> activations{};     ///< [pairs, width]
  device_buffer<float> routed{};      ///< [pairs, hidden]
  device_buffer<unsigned> tickets{};  ///< [hidden / 16], zero between calls

  moe_workspace() = default;
  moe_workspace(context& on, index_t tokens, index_t top_k, index_t most_experts, index_t most_width, index_t hidden_size)
      : pairs(tokens * top_k), experts(most_experts), width(most_width), hidden(hidden_size), indices(pairs), factors(pairs),
        group_words(2 * most_experts + 2 + 2 * pairs), activations(pairs * most_width), routed(pairs * hidden_size),
        tickets(hidden_size / tile::rows) {
    check(cudaMemsetAsync(tickets.data(), 0, sizeof(unsigned) * static_cast<std::size_t>(tickets.size()), on.stream()),
          "cuda::moe_workspace");
  }
  [[nodiscard]] expert_groups groups() const {
    std::int32_t* const at = group_words.data();
    return {at, at + experts + 1, at + experts + 1 + pairs, at + experts + 1 + 2 * pairs, at + 2 * experts + 1 + 2 * pairs};
  }
};

/// Throws `error` where layer, activations and workspace do not fit together.
template <half_precision T>
void check_moe_layer(moe_layer_view<T> const& layer, device_matrix<T const> X, moe_workspace<T> const& work) {
  check_routing_rule(layer.rule, layer.experts);
  expects(!layer.rule.weight_scales_input, "cuda::moe_layer", "weights that multiply an expert's input are not supported");
  expects((layer.selection_bias.data != nullptr) == layer.rule.selection_bias, "cuda::moe_layer",
          "selection_bias: expected exactly when the rule has one");
  expects(layer.hidden % tile::block_columns == 0 && layer.width % tile::block_columns == 0, "cuda::moe_layer",
          "hidden, width: expected multiples of 64");
  expects_equal(X.extent(1), layer.hidden, "cuda::moe_layer", "columns of the activations");
  expects(X.extent(0) * layer.rule.top_k <= work.pairs && layer.experts <= work.experts && layer.width <= work.width &&
              layer.hidden == work.hidden,
          "cuda::moe_layer", "workspace: made for fewer tokens, experts or a smaller layer");
}

/// silu(gate) * up.
[[nodiscard]] __device__ __forceinline__ float gated(float gate, float up) { return gate / (1.0F + expf(-gate)) * up; }

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
