// Small models in host memory, for the tests of the forward pass: 16-bit and 4-bit weights, dropped parts, constant
// experts.
#pragma once

#include "cuda/weights.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/model/families/deepseek.hpp>
#include <slimtrim/model/families/mixtral.hpp>
#include <slimtrim/model/weight_source.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace cuda_tests {

// Random weights of whatever shape the configuration wants; the same module always has the same values.
class random_weights final : public weight_source {
 public:
  // packed(id): whether a matrix has 4-bit codes; novice(layer, expert): whether an expert is a constant.
  using choice = bool (*)(module_id);
  random_weights(model_config config, choice packed, choice novice)
      : config_(std::move(config)), packed_(packed), novice_(novice) {}

  [[nodiscard]] bool has(module_id id) const override {
    return id.role == module_role::novice && novice_ != nullptr && novice_(id);
  }
  [[nodiscard]] weight matrix(module_id id) const override {
    auto const shape = module_shape(config_, id);
    index_t const rows = shape[0], columns = shape[1];
    weight w;
    if (packed_ != nullptr && packed_(id)) {
      auto held =
          std::make_shared<code_matrix>(rows, columns, columns % 64 == 0 ? 64 : 0, id.expert % 2 == 1, seed(id));
      w.view = held->view;
      w.storage = std::move(held);
      return w;
    }
    // Of a size that keeps activations near one; the router's larger, so that no two experts are close.
    double const size = id.role == module_role::embedding
                            ? 1.0
                            : (id.role == module_role::router ? 3.0 : 1.0) / std::sqrt(static_cast<double>(columns));
    auto held = std::make_shared<tensor<bfloat16, 2>>(rows, columns);
    for (index_t i = 0; i < rows * columns; ++i)
      held->view().data[i] = bfloat16(static_cast<float>(size * normal_at(seed(id), 1, static_cast<std::uint64_t>(i))));
    w.view = as_const(held->view());
    w.storage = std::move(held);
    return w;
  }
  [[nodiscard]] std::vector<float> vector(module_id id) const override {
    std::vector<float> values;
    double const middle = id.role == module_role::novice ? 0.0 : 1.0;
    for (index_t j = 0; j < module_shape(config_, id)[0]; ++j)
      values.push_back(static_cast<float>(middle + 0.3 * normal_at(seed(id), 2, static_cast<std::uint64_t>(j))));
    return values;
  }

 private:
  static std::uint64_t seed(module_id id) {
    return 1 + static_cast<std::uint64_t>(id.role) + 100 * static_cast<std::uint64_t>(id.layer) +
           10000 * static_cast<std::uint64_t>(id.expert);
  }
  model_config config_;
  choice packed_, novice_;
};

inline model_config small_config(model_family const& family, index_t hidden, index_t layers) {
  model_config config;
  config.family = &family;
  config.hidden = hidden;
  config.heads = 4;
  config.key_value_heads = 2;
  config.head_dim = 16;
  config.vocabulary = 70;
  config.rms_epsilon = 1e-5;
  config.rope_theta = 10000;
  config.routing = family.routing;
  config.top_k = 2;
  for (index_t i = 0; i < layers; ++i) {
    layer_config layer;
    layer.experts = 4;
    layer.top_k = 2;
    layer.intermediate = 64;
    config.layers.push_back(layer);
  }
  return config;
}

// Every layer another shape: whole, without attention, without experts, with fewer experts of another width.
inline model_config trimmed_mixtral(index_t hidden) {
  model_config config = small_config(mixtral_family, hidden, 4);
  config.layers[1].attention = false;
  config.layers[2].feed_forward = feed_forward_kind::none;
  config.layers[2].experts = 0;
  config.layers[3].experts = 3;
  config.layers[3].intermediate = 96;
  return config;
}

// A dense first layer, then experts beside a shared one, weights not renormalised.
inline model_config small_deepseek(index_t hidden) {
  model_config config = small_config(deepseek_family, hidden, 3);
  config.layers[0].feed_forward = feed_forward_kind::dense;
  config.layers[0].experts = 0;
  config.layers[0].intermediate = 160;
  for (std::size_t i : {1U, 2U}) {
    config.layers[i].experts = 6;
    config.layers[i].top_k = 3;
    config.layers[i].intermediate = 32;
    config.layers[i].shared_intermediate = 64;
  }
  return config;
}

}  // namespace cuda_tests
