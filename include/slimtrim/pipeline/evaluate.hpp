// Perplexity of a model, and its distance from the model it was made of.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/scores.hpp>
#include <slimtrim/pipeline/window_streams.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct evaluate_options {
  std::uint64_t activation_bytes = std::uint64_t{1} << 29;  ///< streams of the windows that go together
  progress_callback progress{};
};

/// What `eval` reports. Logarithms are natural; means are over scored positions, the tokens 1 .. S-1 of every window.
struct evaluation {
  index_t tokens = 0;        ///< scored positions
  double nll = 0;            ///< mean -log p(token)
  bool compared = false;     ///< whether the rest is set
  double base_nll = 0;
  double kl_mean = 0;        ///< mean KL(base || model)
  double kl_p99 = 0;
  double top1_agreement = 0; ///< share of positions where both rank the same token first
  /// Share of (MoE layer, token) pairs in which both models chose the same experts; -1 when layers do not correspond.
  double chosen_agreement = -1;
  double seconds = 0;        ///< of the model's forward passes, without the base's

  [[nodiscard]] double perplexity() const { return std::exp(nll); }
  [[nodiscard]] double base_perplexity() const { return std::exp(base_nll); }
  /// nll of the base / nll.
  [[nodiscard]] double retention() const { return nll > 0 ? base_nll / nll : 0.0; }
};

namespace detail {

// The experts that each token of a chunk chose in one layer, as numbers of the untrimmed model.
class choice_recorder {
 public:
  choice_recorder(layer_config const& layer, index_t tokens) : layer_(&layer), chosen_(static_cast<std::size_t>(tokens)) {}

  struct observer {
    choice_recorder* to;
    index_t first_token;
    void router_result(index_t, routing_result const& r) const {
      for (index_t t = 0; t < r.indices.extent(0); ++t) {
        std::vector<index_t>& set = to->chosen_[static_cast<std::size_t>(first_token + t)];
        set.clear();
        for (index_t slot = 0; slot < r.indices.extent(1); ++slot)
          if (r.indices(t, slot) >= 0) set.push_back(to->layer_->original_expert(r.indices(t, slot)));
        std::sort(set.begin(), set.end());
      }
    }
  };
  [[nodiscard]] observer at(index_t first_token) { return {this, first_token}; }
  [[nodiscard]] index_t agreements(choice_recorder const& other) const {
    index_t same = 0;
    for (std::size_t t = 0; t < chosen_.size(); ++t) same += chosen_[t] == other.chosen_[t] ? 1 : 0;
    return same;
  }

 private:
  layer_config const* layer_;
  std::vector<std::vector<index_t>> chosen_;
};

// Whether layer i of one model is layer i of the other, so that choices can be compared.
[[nodiscard]] inline bool same_layers(model_config const& a, model_config const& b) {
  if (a.layer_count() != b.layer_count()) return false;
  return true;
}

// Scores of the windows of one chunk after the last layer. base: null, or the base's streams.
template <host_backend B>
std::vector<window_scores> score_streams(B const& backend, model_config const& config, model_ends const& ends,
                                         window_streams& streams, model_config const* base_config,
                                         model_ends const* base_ends, window_streams* base,
                                         token_windows const& windows, index_t first, workspace_pool& workspaces) {
  constexpr index_t positions_a_block = 256;
  std::vector<window_scores> scores(static_cast<std::size_t>(streams.count()));
  parallel_for(backend.run_on(), streams.count(), [&](index_t w) {
    auto const work = workspaces.take();
    auto const tokens = windows[first + w];
    index_t const scored = streams.sequence() - 1;
    tensor<float, 2> logits(std::min(positions_a_block, scored), config.vocabulary);
    tensor<float, 2> base_logits(base != nullptr ? logits.extent(0) : 0, config.vocabulary);
    for (index_t t = 0; t < scored; t += positions_a_block) {
      index_t const n = std::min(positions_a_block, scored - t);
      auto const some = tokens.subspan(static_cast<std::size_t>(t), static_cast<std::size_t>(n) + 1);
      auto const out = rows(logits.view(), 0, n);
      final_logits(backend, config, ends, rows(streams.window(w), t, n), out, *work);
      window_scores& sum = scores[static_cast<std::size_t>(w)];
      if (base == nullptr) {
        sum.add(score_window(out, some));
        continue;
      }
      auto const base_out = rows(base_logits.view(), 0, n);
      final_logits(backend, *base_config, *base_ends, rows(base->window(w), t, n), base_out, *work);
      sum.add(compare_window(base_out, out, some));
    }
  });
  return scores;
}

}  // namespace detail

/// Runs `model`, and `base` where given, over all windows. Both are streamed: memory is one layer of each plus the
/// streams of a chunk of windows. Sums over windows in order, in double: the same bits for any executor.
/// Throws `input_error` when the vocabularies differ, `numeric_error` when a likelihood is not finite.
template <host_backend B>
[[nodiscard]] evaluation evaluate(B const& backend, opened_model const& model, opened_model const* base,
                                  token_windows const& windows, evaluate_options const& options = {}) {
  if (base != nullptr && base->config.vocabulary != model.config.vocabulary)
    throw input_error(base->files->config_place(), "field 'vocab_size': expected " +
                                                       std::to_string(model.config.vocabulary) + ", found " +
                                                       std::to_string(base->config.vocabulary));
  model_ends const ends = load_ends(model.config, *model.weights);
  model_ends const base_ends = base != nullptr ? load_ends(base->config, *base->weights) : model_ends{};
  bool const compare_choices = base != nullptr && detail::same_layers(model.config, base->config);
  workspace_pool workspaces;
  read_ahead ahead(*model.weights);
  std::optional<read_ahead> base_ahead;
  if (base != nullptr) base_ahead.emplace(*base->weights);
  window_scores total;
  index_t chosen_pairs = 0, chosen_same = 0;
  double seconds = 0;
  index_t const chunk = windows_within(options.activation_bytes / (base != nullptr ? 2 : 1), windows.sequence,
                                       model.config.hidden);
  index_t const all_tokens = windows.count() * windows.sequence;
  for (index_t first = 0; first < windows.count(); first += chunk) {
    index_t const count = std::min(chunk, windows.count() - first);
    window_streams streams(ends, windows, first, count);
    std::optional<window_streams> base_streams;
    if (base != nullptr) base_streams.emplace(base_ends, windows, first, count);
    streams.lend_to(backend);
    if (base_streams) base_streams->lend_to(backend);
    index_t const layers = std::max(model.config.layer_count(), base != nullptr ? base->config.layer_count() : 0);
    for (index_t i = 0; i < layers; ++i) {
      report_progress(options.progress, "evaluate", tokens_done(windows, first, count, i, layers), all_tokens, "tokens");
      bool const both = i < model.config.layer_count() && base != nullptr && i < base->config.layer_count();
      bool const choices = compare_choices && both && model.config.layer(i).feed_forward == feed_forward_kind::moe &&
                           base->config.layer(i).feed_forward == feed_forward_kind::moe;
      std::optional<detail::choice_recorder> mine, theirs;
      if (choices) {
        mine.emplace(model.config.layer(i), count * windows.sequence);
        theirs.emplace(base->config.layer(i), count * windows.sequence);
      }
      if (i < model.config.layer_count()) {
        ahead.begin_layer(model.config, i + 1);
        decoder_layer const weights = load_layer(model.config, *model.weights, i);
        auto const begin = std::chrono::steady_clock::now();
        if (choices) {
          streams.run_layer_observed(backend, model.config, weights, i, workspaces,
                                     [&](index_t w) { return mine->at(w * windows.sequence); });
        } else {
          streams.run_layer(backend, model.config, weights, i, workspaces);
        }
        seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        model.weights->release(i);
      }
      if (base != nullptr && i < base->config.layer_count()) {
        base_ahead->begin_layer(base->config, i + 1);
        decoder_layer const weights = load_layer(base->config, *base->weights, i);
        if (choices) {
          base_streams->run_layer_observed(backend, base->config, weights, i, workspaces,
                                           [&](index_t w) { return theirs->at(w * windows.sequence); });
          chosen_pairs += count * windows.sequence;
          chosen_same += mine->agreements(*theirs);
        } else {
          base_streams->run_layer(backend, base->config, weights, i, workspaces);
        }
        base->weights->release(i);
      }
    }
    auto const begin = std::chrono::steady_clock::now();
    for (window_scores const& each :
         detail::score_streams(backend, model.config, ends, streams, base != nullptr ? &base->config : nullptr,
                               base != nullptr ? &base_ends : nullptr, base_streams ? &*base_streams : nullptr, windows,
                               first, workspaces))
      total.add(each);
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  report_progress(options.progress, "evaluate", all_tokens, all_tokens, "tokens");
  if (!std::isfinite(total.nll) || !std::isfinite(total.base_nll))
    throw numeric_error("evaluate: a likelihood is not finite: the model's weights or activations overflow");
  evaluation result;
  double const n = static_cast<double>(std::max<index_t>(total.tokens, 1));
  result.tokens = total.tokens;
  result.nll = total.nll / n;
  result.seconds = seconds;
  if (base != nullptr) {
    result.compared = true;
    result.base_nll = total.base_nll / n;
    double sum = 0;
    for (float const kl : total.kl) sum += static_cast<double>(kl);
    result.kl_mean = sum / n;
    result.kl_p99 = percentile(std::move(total.kl), 0.99);
    result.top1_agreement = static_cast<double>(total.agreements) / n;
    if (chosen_pairs > 0) result.chosen_agreement = static_cast<double>(chosen_same) / static_cast<double>(chosen_pairs);
  }
  return result;
}

}  // namespace v0
}  // namespace slimtrim
