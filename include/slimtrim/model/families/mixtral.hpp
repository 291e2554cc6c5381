// Mixtral (arXiv 2401.04088): every layer has routed experts, softmax over all of them, top-k, renormalised.
#pragma once

#include <slimtrim/model/family.hpp>

namespace slimtrim {
inline namespace v0 {

inline constexpr model_family mixtral_family{
    .model_type = "mixtral",
    .architecture = "MixtralForCausalLM",
    .tensors = {{
        {module_role::embedding, "model.embed_tokens.weight"},
        {module_role::final_norm, "model.norm.weight"},
        {module_role::head, "lm_head.weight"},
        {module_role::attention_norm, "model.layers.{layer}.input_layernorm.weight"},
        {module_role::query, "model.layers.{layer}.self_attn.q_proj.weight"},
        {module_role::key, "model.layers.{layer}.self_attn.k_proj.weight"},
        {module_role::value, "model.layers.{layer}.self_attn.v_proj.weight"},
        {module_role::output, "model.layers.{layer}.self_attn.o_proj.weight"},
        {module_role::feed_forward_norm, "model.layers.{layer}.post_attention_layernorm.weight"},
        {module_role::router, "model.layers.{layer}.block_sparse_moe.gate.weight"},
        {module_role::gate, "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight"},
        {module_role::up, "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight"},
        {module_role::down, "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.weight"},
        {module_role::novice, "model.layers.{layer}.block_sparse_moe.experts.{expert}.novice"},
    }},
    .keys = {.experts = "num_local_experts", .expert_intermediate = "intermediate_size"},
    .rope_theta = 1e6,
    .rms_epsilon = 1e-5,
    .layer_lists = {"num_local_experts", "layer_experts_idx", "intermediate_size", "layer_types"},
};

}  // namespace v0
}  // namespace slimtrim
