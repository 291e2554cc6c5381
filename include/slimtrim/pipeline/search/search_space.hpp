// What a search may choose: how much of the structure goes, and how many bits each class of matrices has in each layer.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/pipeline/price.hpp>
#include <slimtrim/pipeline/recipe.hpp>
#include <slimtrim/pipeline/targets.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// How much goes. Nothing goes by default.
struct structure_choice {
  index_t blocks = 0;   ///< whole layers that go
  index_t layers = 0;   ///< MoE parts that go
  index_t experts = 0;  ///< experts kept a layer, on the mean; 0: all
  index_t width = 0;    ///< intermediate width kept; 0: all
  friend auto operator<=>(structure_choice const&, structure_choice const&) = default;
  [[nodiscard]] bool any() const { return blocks != 0 || layers != 0 || experts != 0 || width != 0; }
};

/// A class of matrices that share their bits inside a layer, as recipes name it. `lm_head` and `embedding` are no part of a layer.
inline constexpr std::array<std::string_view, 6> searched_classes{"experts", "attention", "shared_experts", "dense", "lm_head", "embedding"};
[[nodiscard]] inline bool is_layer_class(std::size_t c) { return c < 4; }

/// The place of a role in `searched_classes`, or its size for norms and routers.
[[nodiscard]] inline std::size_t searched_class(module_role of) {
  if (!is_matrix_role(of)) return searched_classes.size();
  auto const at = std::find(searched_classes.begin(), searched_classes.end(), target_class(of));
  return static_cast<std::size_t>(at - searched_classes.begin());
}

/// 16 bits: as the input has it.
inline constexpr int dense_bits = 16;

/// One point of the space. `bits[c][i]`: of class c in layer i of the input; classes outside of layers use entry 0.
struct search_candidate {
  structure_choice structure{};
  std::vector<std::vector<int>> bits{};
  friend bool operator==(search_candidate const&, search_candidate const&) = default;
};

/// Orders in which layers lose their parts: a structure of b blocks takes the first b.
struct drop_orders {
  std::vector<index_t> blocks{};
  std::vector<index_t> layers{};
};

/// The layers whose blocks and whose MoE parts go, ascending each.
[[nodiscard]] inline std::pair<std::vector<index_t>, std::vector<index_t>> dropped_by(structure_choice const& s, drop_orders const& orders) {
  std::vector<index_t> blocks(orders.blocks.begin(), orders.blocks.begin() + s.blocks), layers;
  std::sort(blocks.begin(), blocks.end());
  for (index_t const i : orders.layers)
    if (static_cast<index_t>(layers.size()) < s.layers && !std::binary_search(blocks.begin(), blocks.end(), i)) layers.push_back(i);
  std::sort(layers.begin(), layers.end());
  return {std::move(blocks), std::move(layers)};
}

/// The trim steps of a structure. Layers are named, so that nothing but statistics is needed to decide them again.
[[nodiscard]] inline std::vector<step> structure_steps(structure_choice const& s, drop_orders const& orders, model_config const& config,
                                                       bool uniform) {
  auto const [blocks, layers] = dropped_by(s, orders);
  std::vector<step> steps;
  auto const layer_step = [&](method m, std::vector<index_t> const& which) {
    if (which.empty()) return;
    step one;
    one.method = m;
    one.count = static_cast<index_t>(which.size());
    one.criterion = "cosine";
    one.layers = which;
    steps.push_back(std::move(one));
  };
  layer_step(method::block_drop, blocks);
  layer_step(method::layer_drop, layers);
  if (s.experts != 0) {
    step one;
    one.method = method::expert_drop;
    one.count = s.experts;
    for (layer_config const& layer : config.layers) one.of = std::max(one.of, layer.experts);
    one.global = !uniform;
    one.criterion = uniform ? "reap" : "reap_residual";
    steps.push_back(std::move(one));
  }
  if (s.width != 0) {
    step one;
    one.method = method::neuron_drop;
    one.count = s.width;
    one.criterion = "heapr";
    steps.push_back(std::move(one));
  }
  return steps;
}

/// The slim steps of a candidate whose structure leaves the layers `left` (ascending): `recover` where structure went, then one
/// gptq step for each class and number of bits; a single short step where everything in the layers has the same bits.
[[nodiscard]] inline std::vector<step> slim_steps(search_candidate const& c, std::vector<bool> const& present,
                                                  std::vector<index_t> const& left, index_t group) {
  std::vector<step> steps;
  if (c.structure.any()) {
    step one;
    one.method = method::recover;
    steps.push_back(one);
  }
  auto const quantise = [&](method m, int bits) {
    step one;
    one.method = m;
    one.quantization = default_quantization(m, bits, group);
    return one;
  };
  std::vector<int> all;
  for (std::size_t k = 0; k < searched_classes.size(); ++k)
    if (present[k] && is_layer_class(k))
      for (index_t const i : left) all.push_back(c.bits[k][static_cast<std::size_t>(i)]);
  bool const same = !all.empty() && std::all_of(all.begin(), all.end(), [&](int b) { return b == all.front(); });
  if (same && all.front() != dense_bits) steps.push_back(quantise(method::gptq, all.front()));
  for (std::size_t k = 0; k < searched_classes.size(); ++k) {
    if (!present[k] || (same && is_layer_class(k))) continue;
    if (!is_layer_class(k)) {
      if (c.bits[k][0] == dense_bits) continue;
      steps.push_back(quantise(method::rtn, c.bits[k][0]));
      steps.back().quantization.scale = scale_rule::mse;
      steps.back().targets = {std::string(searched_classes[k])};
      continue;
    }
    std::map<int, std::vector<index_t>> by_bits;
    for (index_t const i : left) by_bits[c.bits[k][static_cast<std::size_t>(i)]].push_back(i);
    for (auto const& [bits, layers] : by_bits) {
      if (bits == dense_bits) continue;
      steps.push_back(quantise(method::gptq, bits));
      steps.back().targets = {std::string(searched_classes[k])};
      if (by_bits.size() > 1) steps.back().layers = layers;
    }
  }
  return steps;
}

/// The largest of 128, 64 and 32 inputs that divides every width in use, so that groups are whole; 0 (the channel) otherwise.
[[nodiscard]] inline index_t common_group(model_config const& config, index_t width) {
  for (index_t const group : {index_t{128}, index_t{64}, index_t{32}}) {
    bool fits = config.hidden % group == 0 && config.heads * config.head_dim % group == 0;
    for (layer_config const& layer : config.layers) {
      index_t const own = layer.feed_forward == feed_forward_kind::moe && width != 0 ? width : layer.intermediate;
      fits = fits && own % group == 0 && layer.shared_intermediate % group == 0;
    }
    if (fits) return group;
  }
  return 0;
}

}  // namespace v0
}  // namespace slimtrim
