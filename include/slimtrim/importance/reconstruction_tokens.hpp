// What tokens tell about every subset of a layer's experts at once: router logits, and inner products of expert outputs.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/importance/criterion.hpp>
#include <slimtrim/router/route.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The loss of Lu et al. (arXiv 2402.14800) for any set of kept experts of one layer:
///
///     loss(C) = 1/T sum_x |F(x) - F_C(x)|^2 = 1/T sum_x c_x^T G_x c_x,   G_x[i, j] = f_i(x) . f_j(x)
///
/// F_C: the layer's routed output when the logits of the experts outside of C are -infinity, so that a token whose expert goes
/// takes the next one with its own weight; c_x: the difference of the weights of F and F_C. Deviation: squared norms, as layers
/// are compared by them. Tokens must have been sent through every expert; only E (E + 3) / 2 floats of each are kept.
class reconstruction_tokens {
 public:
  static constexpr need needs = need::tokens;

  /// `bias`: [experts], or empty when the rule has none. Throws `error` for a rule whose weights scale the experts' inputs:
  /// there outputs are not linear in the weights.
  reconstruction_tokens(index_t experts, routing_rule const& rule, std::vector<float> bias = {})
      : experts_(experts), rule_(rule), bias_(std::move(bias)) {
    check_routing_rule(rule, experts);
    expects(!rule.weight_scales_input, "reconstruction", "rule: expected weights that multiply outputs");
  }

  /// Floats kept of one token.
  [[nodiscard]] static index_t floats_a_token(index_t experts) { return experts + experts * (experts + 1) / 2; }
  [[nodiscard]] index_t experts() const { return experts_; }
  [[nodiscard]] index_t tokens() const { return tokens_; }

  /// Adds tokens. logits: [n, experts]; outputs: one matrix [n, hidden] an expert, before the gate.
  template <host_backend B>
  void add(B const& backend, matrix_view<float const> logits, std::span<matrix_view<float const> const> outputs) {
    index_t const n = logits.extent(0);
    expects_equal(logits.extent(1), experts_, "reconstruction", "columns of logits");
    expects_equal(static_cast<long long>(outputs.size()), experts_, "reconstruction", "number of outputs");
    index_t const pairs = experts_ * (experts_ + 1) / 2;
    auto const first = logits_.size(), first_pair = products_.size();
    logits_.resize(first + static_cast<std::size_t>(n * experts_));
    products_.resize(first_pair + static_cast<std::size_t>(n * pairs));
    for (index_t t = 0; t < n; ++t)
      for (index_t j = 0; j < experts_; ++j) logits_[first + static_cast<std::size_t>(t * experts_ + j)] = logits(t, j);
    std::vector<float> dots(static_cast<std::size_t>(n));
    index_t pair = 0;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      for (std::size_t j = 0; j <= i; ++j, ++pair) {
        backend.row_dots(outputs[i], outputs[j], vector_view<float>(dots.data(), n));
        for (index_t t = 0; t < n; ++t)
          products_[first_pair + static_cast<std::size_t>(t * pairs + pair)] = dots[static_cast<std::size_t>(t)];
      }
    tokens_ += n;
    base_ready_ = false;
  }

  /// The loss of keeping `kept` (ascending, at least one). In double; pieces of 1024 tokens, added in order, so the same bits for
  /// any executor. Cost O(tokens * (experts * top_k + top_k^2)). Never negative. 0 without tokens.
  template <host_backend B>
  [[nodiscard]] double loss(B const& backend, std::span<index_t const> kept) {
    expects(!kept.empty(), "reconstruction", "kept: expected at least one expert");
    if (tokens_ == 0) return 0;
    if (!base_ready_) {
      route_all(backend, {}, base_);
      base_ready_ = true;
    }
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(experts_), 0);
    for (index_t const j : kept) mask[static_cast<std::size_t>(j)] = 1;
    route_all(backend, mask, changed_);
    constexpr index_t tokens_a_piece = 1024;
    std::vector<double> sums(static_cast<std::size_t>(ceil_div(tokens_, tokens_a_piece)), 0.0);
    parallel_for(backend.run_on(), static_cast<index_t>(sums.size()), [&](index_t piece) {
      double sum = 0;
      for (index_t t = piece * tokens_a_piece; t < std::min(tokens_, (piece + 1) * tokens_a_piece); ++t) sum += token_loss(t);
      sums[static_cast<std::size_t>(piece)] = sum;
    });
    double total = 0;
    for (double const sum : sums) total += sum;
    return total / static_cast<double>(tokens_);
  }

 private:
  struct routed_tokens {
    tensor<std::int32_t, 2> indices;
    tensor<float, 2> weights;
  };

  template <host_backend B>
  void route_all(B const& backend, std::vector<std::uint8_t> const& mask, routed_tokens& out) const {
    if (out.indices.extent(0) != tokens_) {
      out.indices = tensor<std::int32_t, 2>(tokens_, rule_.top_k);
      out.weights = tensor<float, 2>(tokens_, rule_.top_k);
    }
    vector_view<float const> bias;
    if (!bias_.empty()) bias = vector_view<float const>(bias_.data(), experts_);
    vector_view<std::uint8_t const> kept;
    if (!mask.empty()) kept = vector_view<std::uint8_t const>(mask.data(), experts_);
    route(backend, matrix_view<float const>(logits_.data(), tokens_, experts_), rule_, bias, out.indices.view(),
          out.weights.view(), {}, kept);
  }

  [[nodiscard]] double token_loss(index_t t) const {
    // Differences of weights, by expert; at most 2 top_k of them.
    std::array<std::pair<index_t, double>, 64> few;
    std::vector<std::pair<index_t, double>> many;
    std::size_t count = 0;
    bool const fits = 2 * rule_.top_k <= static_cast<index_t>(few.size());
    if (!fits) many.resize(static_cast<std::size_t>(2 * rule_.top_k));
    auto* const c = fits ? few.data() : many.data();
    auto const put = [&](index_t expert, double weight) {
      for (std::size_t i = 0; i < count; ++i)
        if (c[i].first == expert) {
          c[i].second += weight;
          return;
        }
      c[count++] = {expert, weight};
    };
    for (index_t slot = 0; slot < rule_.top_k; ++slot) {
      if (base_.indices(t, slot) >= 0) put(base_.indices(t, slot), static_cast<double>(base_.weights(t, slot)));
      if (changed_.indices(t, slot) >= 0) put(changed_.indices(t, slot), -static_cast<double>(changed_.weights(t, slot)));
    }
    float const* const products = products_.data() + t * (experts_ * (experts_ + 1) / 2);
    double sum = 0;
    for (std::size_t a = 0; a < count; ++a)
      for (std::size_t b = 0; b <= a; ++b) {
        index_t const i = std::max(c[a].first, c[b].first), j = std::min(c[a].first, c[b].first);
        sum += (a == b ? 1 : 2) * c[a].second * c[b].second * static_cast<double>(products[i * (i + 1) / 2 + j]);
      }
    return std::max(sum, 0.0);
  }

  index_t experts_;
  routing_rule rule_;
  std::vector<float> bias_;
  index_t tokens_ = 0;
  std::vector<float> logits_, products_;
  routed_tokens base_, changed_;
  bool base_ready_ = false;
};

}  // namespace v0
}  // namespace slimtrim
