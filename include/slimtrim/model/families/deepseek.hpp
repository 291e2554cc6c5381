// DeepSeek-MoE, version 1 (arXiv 2401.06066): leading dense layers, fine-grained routed experts whose softmax weights
// are not renormalised, and shared experts that every token takes.
#pragma once

#include <slimtrim/model/family.hpp>

namespace slimtrim {
inline namespace v0 {

inline constexpr model_family deepseek_family{
    .model_type = "deepseek",
    .architecture = "DeepseekForCausalLM",
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
        {module_role::router, "model.layers.{layer}.mlp.gate.weight"},
        {module_role::gate, "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight"},
        {module_role::up, "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"},
        {module_role::down, "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight"},
        {module_role::novice, "model.layers.{layer}.mlp.experts.{expert}.novice"},
        {module_role::shared_gate, "model.layers.{layer}.mlp.shared_experts.gate_proj.weight"},
        {module_role::shared_up, "model.layers.{layer}.mlp.shared_experts.up_proj.weight"},
        {module_role::shared_down, "model.layers.{layer}.mlp.shared_experts.down_proj.weight"},
        {module_role::dense_gate, "model.layers.{layer}.mlp.gate_proj.weight"},
        {module_role::dense_up, "model.layers.{layer}.mlp.up_proj.weight"},
        {module_role::dense_down, "model.layers.{layer}.mlp.down_proj.weight"},
    }},
    .keys = {.experts = "n_routed_experts",
             .expert_intermediate = "moe_intermediate_size",
             .dense_intermediate = "intermediate_size",
             .shared_experts = "n_shared_experts",
             .first_dense = "first_k_dense_replace",
             .moe_frequency = "moe_layer_freq",
             .renormalise = "norm_topk_prob",
             .scale = "routed_scaling_factor",
             .score = "scoring_func",
             .group_method = "topk_method"},
    .routing = {.top_k = 1, .renormalise = false, .weight_sum_epsilon = 1e-20},
    .rope_theta = 10000,
    .rms_epsilon = 1e-6,
    .layer_lists = {"n_routed_experts", "layer_experts_idx", "moe_intermediate_size"},
    .leading_counts = {"first_k_dense_replace"},
    .layer_strides = {"moe_layer_freq"},
};

}  // namespace v0
}  // namespace slimtrim
