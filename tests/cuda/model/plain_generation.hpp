// Small models on the device and the plain loop that their generation is compared with: one forward pass a token, over
// a cache of its own.
//
// Tolerance where kernels for many tokens and for one meet: activations are rounded to 8 bits about six times a layer,
// 2^-8 at most each and independently, so two layers give sqrt(12) 2^-8 = 1.35e-2 of the logits' size.
#pragma once

#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/generate.cuh>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

namespace cuda_tests {

using texts = std::vector<std::vector<std::uint32_t>>;

inline constexpr double relative_off = 1.35e-2;

inline bool packed_between_ends(module_id id) {
  return id.role != module_role::embedding && id.role != module_role::head && id.role != module_role::router;
}
// The second layer has no attention. Few tokens to choose from, so that their logits are apart.
inline model_config two_layers(index_t hidden) {
  auto config = trimmed_mixtral(hidden);
  config.layers.resize(2);
  config.vocabulary = 24;
  return config;
}
// A dense layer, then experts beside a shared one.
inline model_config dense_and_shared() {
  auto config = small_deepseek(64);
  config.layers.resize(2);
  config.vocabulary = 24;
  return config;
}

struct model_on_device {
  own_stream stream;
  device_memory device{stream.get()};
  model_config config;
  random_weights source;
  cuda::device_model<bfloat16> m;
  explicit model_on_device(model_config const& of)
      : config(of), source(config, packed_between_ends, nullptr), m(device.backend().on(), config, source) {}
  cuda::context& on() { return device.backend().on(); }

  // Row t: the logits behind tokens 0 .. t. `chosen`: gets the experts of the last token in the last layer that has
  // some.
  tensor<float, 2> token_by_token(std::vector<std::uint32_t> const& tokens, index_t capacity,
                                  std::set<std::int32_t>* chosen = nullptr) {
    cuda::layer_workspace<bfloat16> work(on(), m.shape, m.extents, 1);
    cuda::device_cache<bfloat16> const cache(m, 1, capacity);
    cuda::attention_workspace const attention(on(), 1, m.shape.heads, capacity);
    auto const logits = device.matrix<float>(1, m.logit_columns());
    tensor<float, 2> all(static_cast<index_t>(tokens.size()), config.vocabulary);
    for (index_t t = 0; t < all.extent(0); ++t) {
      auto const id = static_cast<std::int32_t>(tokens[static_cast<std::size_t>(t)]),
                 before = static_cast<std::int32_t>(t);
      cuda::forward<bfloat16>(on(), m, device.keep<std::int32_t>(&id, 1), 1, {device.keep<std::int32_t>(&before, 1), 1},
                              cache, 0, attention, work);
      cuda::final_logits<bfloat16>(on(), m.shape, m.ends, 1, 0, 1, work, logits);
      auto const row = device.download<float>(logits);
      for (index_t v = 0; v < config.vocabulary; ++v) all(t, v) = row[static_cast<std::size_t>(v)];
    }
    if (chosen == nullptr) return all;
    auto const slots = static_cast<std::size_t>(config.layers.back().top_k);
    auto const experts = device.download<std::int32_t>(work.routed.indices.view());
    chosen->insert(experts.begin(), experts.begin() + static_cast<std::ptrdiff_t>(slots));
    return all;
  }
  texts generate(texts const& prompts, generate_options const& options, token_callback const& told = {}) {
    return cuda::generate<bfloat16>(on(), m, std::span<std::vector<std::uint32_t> const>(prompts), options, told);
  }
};

inline std::vector<std::uint32_t> some_tokens(index_t count, std::uint64_t seed) {
  std::vector<std::uint32_t> tokens;
  for (index_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::uint32_t>(random_bits_at(seed, 8, static_cast<std::uint64_t>(i)) % 24));
  return tokens;
}

// Root of the mean square.
inline double size_of(vector_view<float const> x) {
  double sum = 0;
  for (index_t i = 0; i < x.extent(0); ++i) sum += static_cast<double>(x(i)) * static_cast<double>(x(i));
  return std::sqrt(sum / static_cast<double>(x.extent(0)));
}

inline bool near(vector_view<float const> found, vector_view<float const> expected) {
  double error = 0;
  for (index_t i = 0; i < expected.extent(0); ++i) {
    double const off = static_cast<double>(found(i)) - static_cast<double>(expected(i));
    error += off * off;
  }
  return std::sqrt(error / static_cast<double>(expected.extent(0))) < relative_off * size_of(expected);
}
inline bool same(vector_view<float const> a, vector_view<float const> b) {
  for (index_t i = 0; i < a.extent(0); ++i)
    if (a(i) != b(i)) return false;
  return true;
}

// Each new token has the largest logit of the plain loop behind what comes before it. Two logits move apart by sqrt(2)
// of what one moves, four times that at most; of two that are nearer either may have been taken. Returns how many were
// far enough apart.
inline int check_greedy(model_on_device& model, std::vector<std::uint32_t> const& prompt,
                        std::vector<std::uint32_t> const& made) {
  auto text = prompt;
  text.insert(text.end(), made.begin(), made.end());
  auto const logits = model.token_by_token(text, static_cast<index_t>(text.size()));
  int decided = 0;
  for (std::size_t i = prompt.size(); i < text.size(); ++i) {
    auto const all = row(as_const(logits.view()), static_cast<index_t>(i) - 1);
    std::vector<float> sorted;
    for (index_t v = 0; v < all.extent(0); ++v) sorted.push_back(all(v));
    std::sort(sorted.begin(), sorted.end(), [](float a, float b) { return a > b; });
    double const reach = 5.7 * relative_off * size_of(all);
    CHECK(static_cast<double>(all(static_cast<index_t>(text[i]))) > static_cast<double>(sorted[0]) - reach);
    decided += static_cast<double>(sorted[1]) < static_cast<double>(sorted[0]) - reach ? 1 : 0;
  }
  return decided;
}

}  // namespace cuda_tests
