// Hooks into the forward pass. An observer is any object with some of the members below; absent ones cost nothing.
//
// T rows are the tokens of this call, D the hidden size, F an expert's width, E the layer's experts, K its top_k.
// Views are valid during the call only. Hooks are called on the calling thread, in this order, layer by layer.
//
// | member                                                        | sees                                             |
// |---------------------------------------------------------------|--------------------------------------------------|
// | block_input(layer, X)                                         | [T, D] the residual stream before the layer      |
// | attention_input(layer, N)                                     | [T, D] normalised; input of query, key, value    |
// | attention_context(layer, Z)                                   | [T, heads * head_dim] input of the output matrix |
// | attention_residual(layer, X)                                  | [T, D] x', the stream after attention (or as it  |
// |                                                               | was, where attention was dropped)                |
// | feed_forward_input(layer, N)                                  | [T, D] normalised x'; dense and MoE layers       |
// | router_result(layer, routing_result)                          | logits, probabilities, indices, weights          |
// | expert_input(layer, expert_batch, X)                          | [n, D] rows of N that chose the expert           |
// | expert_hidden(layer, expert_batch, H)                         | [n, F] silu(gate) * up: input of down            |
// | expert_output(layer, expert_batch, O)                         | [n, D] before the gate weight                    |
// | shared_hidden(layer, H), dense_hidden(layer, H)               | [T, F] input of down                             |
// | feed_forward_output(layer, Y)                                 | [T, D] what is added to x'                       |
// | block_output(layer, X)                                        | [T, D] the stream after the layer                |
//
// Experts that nobody chose are not reported; a novice reports expert_output only.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cstdint>
#include <span>

namespace slimtrim {
inline namespace v0 {

/// What the router said about every token: logits and probabilities [T, E]; indices and weights [T, K], slots in
/// descending order of the selection score, `no_expert` with weight 0 for an unused slot.
struct routing_result {
  matrix_view<float const> logits;
  matrix_view<float const> probabilities;
  matrix_view<std::int32_t const> indices;
  matrix_view<float const> weights;
};

/// The tokens that chose one expert: row numbers (ascending) and the weight of the expert in each.
struct expert_batch {
  index_t expert = 0;
  std::span<std::int32_t const> tokens;
  std::span<float const> weights;
};

/// Watches nothing.
struct no_observer {};

}  // namespace v0
}  // namespace slimtrim

// Calls a hook where the observer has it.
#define SLIMTRIM_NOTIFY(observer, hook, ...)                                           \
  do {                                                                                 \
    if constexpr (requires { (observer).hook(__VA_ARGS__); }) (observer).hook(__VA_ARGS__); \
  } while (false)
