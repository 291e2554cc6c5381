// A made-up MoE layer: random router scores and expert outputs, fed to a layer_statistics window by window.
#pragma once

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/router/dispatch.hpp>
#include <slimtrim/router/route.hpp>
#include <slimtrim/router/routing_view.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

namespace toy {

using namespace slimtrim;

inline constexpr index_t tokens = 12, experts = 5, hidden = 6, width = 4;

struct window {
  routing_rule rule{.top_k = 2, .scale = 1.5F};
  tensor<float, 2> logits{tokens, experts}, probabilities{tokens, experts}, weights{tokens, 2};
  tensor<std::int32_t, 2> indices{tokens, 2};
  tensor<float, 2> block_input{tokens, hidden}, residual{tokens, hidden}, moe_input{tokens, hidden},
      moe_output{tokens, hidden}, block_output{tokens, hidden};

  explicit window(std::uint64_t number) : number_(number) {
    std::uint64_t at = 0;
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < experts; ++j)  // expert 4 is never chosen
        logits(t, j) = static_cast<float>(normal_at(number, 0, at++)) - (j == 4 ? 50.0F : 0.0F);
      for (index_t c = 0; c < hidden; ++c) {
        block_input(t, c) = static_cast<float>(normal_at(number, 1, at++));
        residual(t, c) = static_cast<float>(normal_at(number, 1, at++));
        moe_input(t, c) = static_cast<float>(normal_at(number, 1, at++));
        moe_output(t, c) = static_cast<float>(normal_at(number, 1, at++));
        block_output(t, c) = residual(t, c) + moe_output(t, c);
      }
    }
    route(reference_backend{}, as_const(logits.view()), rule, {}, indices.view(), weights.view(), probabilities.view());
  }

  [[nodiscard]] routing_view routing() const { return {probabilities.view(), indices.view(), weights.view()}; }
  [[nodiscard]] layer_activations activations() const {
    return {block_input.view(), residual.view(), moe_input.view(), moe_output.view(), block_output.view()};
  }
  /// Output of an expert for a token, element c.
  [[nodiscard]] float output(index_t expert, index_t token, index_t c) const {
    auto const at = static_cast<std::uint64_t>((expert * tokens + token) * hidden + c);
    return static_cast<float>(normal_at(number_, 2, at)) * static_cast<float>(expert + 1);
  }
  [[nodiscard]] float activation(index_t expert, index_t token, index_t k) const {
    auto const at = static_cast<std::uint64_t>((expert * tokens + token) * width + k);
    return static_cast<float>(normal_at(number_, 3, at));
  }
  [[nodiscard]] double norm(index_t expert, index_t token) const {
    double sum = 0;
    for (index_t c = 0; c < hidden; ++c)
      sum += static_cast<double>(output(expert, token, c)) * static_cast<double>(output(expert, token, c));
    return std::sqrt(sum);
  }

  /// Feeds everything, as an engine would, and commits.
  template <class B>
  void feed(B const& backend, layer_statistics& into) const {
    into.router.add(routing());
    into.similarity.add(backend, activations());
    into.norms.begin_window(tokens, 2);
    auto const groups = group_by_expert(indices.view(), experts);
    for (index_t e = 0; e < experts; ++e) {
      auto const who = groups.tokens_of(e), where = groups.slots_of(e);
      auto const n = static_cast<index_t>(who.size());
      tensor<float, 2> f(n, hidden), h(n, width);
      std::vector<float> g(who.size());
      for (std::size_t i = 0; i < who.size(); ++i) {
        for (index_t c = 0; c < hidden; ++c) f(static_cast<index_t>(i), c) = output(e, who[i], c);
        for (index_t k = 0; k < width; ++k) h(static_cast<index_t>(i), k) = activation(e, who[i], k);
        g[i] = weights(who[i], where[i]);
      }
      into.norms.add_outputs(backend, e, who, where, as_const(f.view()));
      if (into.outputs) into.outputs->add(backend, e, as_const(f.view()));
      if (into.neurons) into.neurons->add(backend, e, as_const(h.view()), g);
    }
    into.norms.add(routing(), into.similarity.change());
    into.commit_window();
  }

 private:
  std::uint64_t number_;
};

inline layer_statistics everything() {
  return layer_statistics(
      {.experts = experts, .hidden = hidden, .intermediate = width, .outputs = true, .neurons = true});
}

}  // namespace toy
