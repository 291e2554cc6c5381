// The rows of the paper's Table 3 (arXiv 2406.02500) as shapes of models, and the eager baselines.
#pragma once

#include <slimtrim/model/families/deepseek.hpp>
#include <slimtrim/model/families/mixtral.hpp>
#include <slimtrim/model/model_config.hpp>

#include <string>
#include <vector>

namespace paper_table {

using namespace slimtrim;

/// How the weights lie and who computes.
enum class row_kind { fused_bf16, fused_4bit, eager_bf16, transformers };

struct table_row {
  std::string name;   ///< e.g. mixtral-l8-4bit
  std::string label;  ///< as in the table
  bool deepseek = false;
  index_t experts_dropped = 0, layers_dropped = 0, blocks_dropped = 0;
  row_kind kind = row_kind::fused_bf16;
  double paper_speedup = 0, paper_memory = 0;  ///< 0: the paper's own baseline, or no row of the paper
};

[[nodiscard]] inline std::vector<table_row> all_rows() {
  constexpr auto bf16 = row_kind::fused_bf16, packed = row_kind::fused_4bit;
  return {
      {"mixtral-eager", "base, eager loop over cuBLAS", false, 0, 0, 0, row_kind::eager_bf16, 0, 0},
      {"mixtral-transformers", "base, transformers", false, 0, 0, 0, row_kind::transformers, 1, 87.7},
      {"mixtral-base", "base", false, 0, 0, 0, bf16, 1, 87.7},
      {"mixtral-4bit", "4-bit", false, 0, 0, 0, packed, 5.08, 24.4},
      {"mixtral-e2", "E2/8", false, 2, 0, 0, bf16, 1.06, 66.7},
      {"mixtral-e2-4bit", "E2/8 + 4-bit", false, 2, 0, 0, packed, 5.28, 20.1},
      {"mixtral-l8", "L8/32", false, 0, 8, 0, bf16, 1.19, 66.6},
      {"mixtral-l8-4bit", "L8/32 + 4-bit", false, 0, 8, 0, packed, 6.05, 20.0},
      {"mixtral-b5", "B5/32", false, 0, 0, 5, bf16, 1.17, 74.1},
      {"mixtral-b5-4bit", "B5/32 + 4-bit", false, 0, 0, 5, packed, 5.94, 21.9},
      {"deepseek-eager", "base, eager loop over cuBLAS", true, 0, 0, 0, row_kind::eager_bf16, 0, 0},
      {"deepseek-transformers", "base, transformers", true, 0, 0, 0, row_kind::transformers, 1, 30.8},
      {"deepseek-base", "base", true, 0, 0, 0, bf16, 1, 30.8},
      {"deepseek-4bit", "4-bit", true, 0, 0, 0, packed, 3.16, 9.8},
      {"deepseek-e16", "E16/64", true, 16, 0, 0, bf16, 1.06, 23.9},
      {"deepseek-e16-4bit", "E16/64 + 4-bit", true, 16, 0, 0, packed, 3.34, 7.7},
      {"deepseek-l4", "L4/28", true, 0, 4, 0, bf16, 1.14, 26.6},
      {"deepseek-l4-4bit", "L4/28 + 4-bit", true, 0, 4, 0, packed, 3.60, 8.5},
      {"deepseek-b4", "B4/28", true, 0, 0, 4, bf16, 1.16, 26.4},
      {"deepseek-b4-4bit", "B4/28 + 4-bit", true, 0, 0, 4, packed, 3.67, 8.4},
  };
}

/// The model that the row trimmed. Dropped layers are spread evenly, so that a slab of the first layers has its share
/// of them.
[[nodiscard]] inline model_config shape_of(table_row const& row) {
  model_config config;
  config.family = row.deepseek ? &deepseek_family : &mixtral_family;
  config.hidden = row.deepseek ? 2048 : 4096;
  config.heads = row.deepseek ? 16 : 32;
  config.key_value_heads = row.deepseek ? 16 : 8;
  config.head_dim = 128;
  config.vocabulary = row.deepseek ? 102400 : 32000;
  config.rms_epsilon = config.family->rms_epsilon;
  config.rope_theta = config.family->rope_theta;
  config.routing = config.family->routing;
  config.top_k = row.deepseek ? 6 : 2;
  index_t const layers = row.deepseek ? 28 : 32;
  index_t dropped_so_far = 0;
  index_t const dropped = row.layers_dropped + row.blocks_dropped;
  for (index_t i = 0; i < layers; ++i) {
    bool const drop = (i + 1) * dropped / layers > dropped_so_far;
    if (drop) ++dropped_so_far;
    if (drop && row.blocks_dropped > 0) continue;
    layer_config layer;
    if (row.deepseek && i == 0) {
      layer.feed_forward = feed_forward_kind::dense;
      layer.intermediate = 10944;
    } else if (drop) {
      layer.feed_forward = feed_forward_kind::none;
    } else {
      layer.experts = (row.deepseek ? 64 : 8) - row.experts_dropped;
      layer.top_k = config.top_k;
      layer.intermediate = row.deepseek ? 1408 : 14336;
      layer.shared_intermediate = row.deepseek ? 2816 : 0;
    }
    config.layers.push_back(layer);
  }
  return config;
}

}  // namespace paper_table
