// The feed-forward part of one decoder layer in the calibrated pass: gate and up on the normalised stream (experts on the
// tokens routed to them), then the down matrices on the hidden activations that the slimmed gate and up make, re-fitted
// first: jointly where their Gram matrix fits the budget, expert by expert where it does not.
#pragma once

#include <slimtrim/pipeline/calibrated_context.hpp>
#include <slimtrim/recovery/expert_fit.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace detail {

template <host_backend B>
void slim_dense_inputs(calibrated_context<B>& at, index_t i, decoder_layer& layer) {
  std::pair<slimmed_module const*, weight*> const targets[2] = {{at.find(module_role::dense_gate, i), &layer.dense->gate},
                                                                {at.find(module_role::dense_up, i), &layer.dense->up}};
  bool const wanted = at.wants_hessian(targets[0].first) || at.wants_hessian(targets[1].first);
  input_moments moments;
  if (wanted) moments = at.normed_moments(layer.feed_forward_norm);
  for (auto const& [target, slot] : targets) {
    input_moments own;
    if (wanted) own.hessian = moments.hessian.clone();
    own.tokens = moments.tokens;
    *slot = at.finish(target, *slot, wanted ? &own : nullptr);
  }
}

template <host_backend B>
void slim_feed_forward_inputs(calibrated_context<B>& at, index_t i, decoder_layer& layer) {
  if (layer.dense) return slim_dense_inputs(at, i, layer);
  std::vector<expert_weights>& experts = layer.moe->experts;
  index_t const all = static_cast<index_t>(experts.size()), hidden = at.input.config.hidden;
  bool wanted = false, shared_wanted = false;
  for (std::size_t e = 0; e < experts.size(); ++e)
    wanted = wanted || at.wants_hessian(at.find(module_role::gate, i, at.expert_of(i, e))) ||
             at.wants_hessian(at.find(module_role::up, i, at.expert_of(i, e)));
  if (layer.moe->shared)
    shared_wanted = at.wants_hessian(at.find(module_role::shared_gate, i)) || at.wants_hessian(at.find(module_role::shared_up, i));
  std::vector<double> tokens(experts.size(), 0.0), squares(experts.size(), 0.0);
  matrix<float> pooled;
  double pooled_tokens = 0;
  if (wanted || shared_wanted) pooled = zero_moments(hidden);
  // What the other passes must see is the layer as it was, so results wait until all groups are done.
  decoder_layer const before = layer;
  index_t const flight = wanted ? at.experts_in_flight(hidden, experts.size()) : std::max<index_t>(all, 1);
  for (index_t first = 0; first < all; first += flight) {
    index_t const count = std::min(flight, all - first);
    std::vector<matrix<float>> hessians;
    if (wanted || (shared_wanted && first == 0)) {
      for (index_t e = 0; e < (wanted ? count : 0); ++e) hessians.push_back(zero_moments(hidden));
      expert_input_observer<B> observer;
      observer.backend = &at.backend;
      observer.first = first;
      observer.hessians = &hessians;
      observer.tokens = &tokens;
      observer.squares = &squares;
      observer.pooled = first == 0 ? &pooled : nullptr;
      observer.weighted = at.options.affinity;
      at.watch_feed_forward(
          before, observer,
          [&](index_t first_window, index_t windows, bool) { observer.counts = at.counts_of(first_window, windows); },
          [&](matrix_view<float const> X) {
            if (first == 0) pooled_tokens += static_cast<double>(X.extent(0));
          });
    }
    for (index_t e = 0; e < count; ++e) {
      auto const place = static_cast<std::size_t>(first + e);
      swiglu_weights& swiglu = experts[place].swiglu;
      if (experts[place].is_novice()) continue;
      for (auto const& [role, slot] : {std::pair{module_role::gate, &swiglu.gate}, std::pair{module_role::up, &swiglu.up}}) {
        input_moments moments;
        if (wanted) {
          moments.hessian = hessians[static_cast<std::size_t>(e)].clone();
          moments.tokens = tokens[place];
          moments.weight = squares[place];
          moments.pooled = &pooled;
          moments.pooled_tokens = pooled_tokens;
        }
        *slot = at.finish(at.find(role, i, at.expert_of(i, place)), *slot, wanted ? &moments : nullptr);
      }
    }
  }
  if (layer.moe->shared)
    for (auto const& [role, slot] : {std::pair{module_role::shared_gate, &layer.moe->shared->gate},
                                     std::pair{module_role::shared_up, &layer.moe->shared->up}}) {
      input_moments moments;
      if (shared_wanted) moments.hessian = pooled.clone();
      moments.tokens = pooled_tokens;
      *slot = at.finish(at.find(role, i), *slot, shared_wanted ? &moments : nullptr);
    }
}

// A matrix that writes into the stream behind the layer: an expert's down, then the shared or dense one.
struct writer_slot {
  slimmed_module const* target = nullptr;
  weight* slot = nullptr;
  swiglu_weights const* swiglu = nullptr;
  index_t column = -1;          // in the joint fit; -1: keeps its values
  std::ptrdiff_t expert = -1;   // -1: the shared or dense one
  weight now{};                 // what will be slimmed: as it was, or fitted
  ordered_json report{};
};

struct layer_writers {
  std::vector<writer_slot> slots;
  std::vector<index_t> offsets;  // [experts + 1], as hidden_observer wants them
  index_t features = 0;          // columns of all that are fitted
};

template <host_backend B>
[[nodiscard]] layer_writers writers_of(calibrated_context<B> const& at, index_t i, decoder_layer& layer) {
  layer_writers all;
  auto const add = [&](slimmed_module const* target, swiglu_weights& swiglu, std::ptrdiff_t expert) {
    writer_slot slot{target, &swiglu.down, &swiglu, -1, expert, swiglu.down, {}};
    if (at.wants_fit(target)) {
      slot.column = all.features;
      all.features += swiglu.down.columns();
    }
    all.offsets.back() = slot.column;
    all.slots.push_back(std::move(slot));
  };
  if (layer.moe)
    for (std::size_t e = 0; e < layer.moe->experts.size(); ++e) {
      expert_weights& expert = layer.moe->experts[e];
      all.offsets.push_back(-1);
      if (!expert.is_novice())
        add(at.find(module_role::down, i, at.expert_of(i, e)), expert.swiglu, static_cast<std::ptrdiff_t>(e));
    }
  all.offsets.push_back(-1);
  if (layer.dense) add(at.find(module_role::dense_down, i), *layer.dense, -1);
  if (layer.moe && layer.moe->shared) add(at.find(module_role::shared_down, i), *layer.moe->shared, -1);
  return all;
}

// The down matrices side by side, fitted to all that lacks behind the layer.
template <host_backend B>
void fit_jointly(calibrated_context<B>& at, split_moments& moments, std::vector<writer_slot>& slots) {
  index_t const out = at.input.config.hidden;
  complete_gram(moments.fitted.gram.view());
  complete_gram(moments.held_out.gram.view());
  tensor<float, 2> joint(out, moments.fitted.gram.extent(0));
  for (writer_slot const& slot : slots)
    if (slot.column >= 0) expand_rows(slot.now.view, 0, columns(joint.view(), slot.column, slot.now.columns()));
  residual_fit_report const report = fit_split(at.backend, moments, joint.view(), at.options.fit);
  for (writer_slot& slot : slots) {
    if (slot.column < 0) continue;
    slot.report = fit_json(report);
    slot.report["form"] = "joint";
    if (!report.changed) continue;
    tensor<float, 2> part(out, slot.now.columns());
    copy_rows(as_const(columns(joint.view(), slot.column, slot.now.columns())), part.view());
    slot.now = own_weight(std::move(part));
  }
}

// Which tokens go to which expert with what weight: rows of the stream, for [experts + 1] slots, the last one the shared or dense one.
struct routed_tokens {
  std::vector<index_t> const* offsets = nullptr;
  index_t first_row = 0;
  std::vector<std::vector<std::int32_t>> tokens{};
  std::vector<std::vector<float>> weights{};
  std::vector<float> counts{};  // of all rows, as token_counts has them

  explicit routed_tokens(std::vector<index_t> const& of) : offsets(&of), tokens(of.size()), weights(of.size()) {}

  [[nodiscard]] bool fitted(std::size_t slot) const { return (*offsets)[slot] >= 0; }
  void add(std::size_t slot, index_t token, float weight) {
    tokens[slot].push_back(static_cast<std::int32_t>(first_row + token));
    weights[slot].push_back(weight);
  }
};

// Sees them as the layer runs on the host, and the size of all features.
struct features_survey : routed_tokens {
  double squares = 0;

  using routed_tokens::routed_tokens;
  void add_row(std::size_t slot, index_t token, float weight, matrix_view<float const> H, index_t t) {
    add(slot, token, weight);
    double sum = 0;
    for (index_t j = 0; j < H.extent(1); ++j) sum += static_cast<double>(H(t, j)) * static_cast<double>(H(t, j));
    double const factor = static_cast<double>(weight) * static_cast<double>(counts[static_cast<std::size_t>(first_row + token)]);
    squares += sum * factor * factor;
  }
  void expert_hidden(index_t, expert_batch const& batch, matrix_view<float const> H) {
    auto const slot = static_cast<std::size_t>(batch.expert);
    if (!fitted(slot)) return;
    for (index_t t = 0; t < H.extent(0); ++t)
      add_row(slot, batch.tokens[static_cast<std::size_t>(t)], batch.weights[static_cast<std::size_t>(t)], H, t);
  }
  void shared_hidden(index_t, matrix_view<float const> H) {
    if (!fitted(offsets->size() - 1)) return;
    for (index_t t = 0; t < H.extent(0); ++t) add_row(offsets->size() - 1, t, 1.0F, H, t);
  }
  void dense_hidden(index_t layer, matrix_view<float const> H) { shared_hidden(layer, H); }
};

// Sees them where features are made elsewhere: only the router's results come here.
struct routing_survey : routed_tokens {
  using routed_tokens::routed_tokens;
  void router_result(index_t, routing_result const& r) {
    for (index_t t = 0; t < r.indices.extent(0); ++t)
      for (index_t s = 0; s < r.indices.extent(1); ++s) {
        std::int32_t const e = r.indices(t, s);
        if (e >= 0 && fitted(static_cast<std::size_t>(e))) add(static_cast<std::size_t>(e), t, r.weights(t, s));
      }
  }
  void every_row(index_t rows) {
    if (!fitted(offsets->size() - 1)) return;
    for (index_t t = 0; t < rows; ++t) add(offsets->size() - 1, t, 1.0F);
  }
};

// What a fit expert by expert starts from.
struct lacking_rows {
  matrix<float> residual;
  std::vector<char> held_out;
  bool judged = false;

  lacking_rows(index_t rows, index_t hidden) : residual(rows, hidden), held_out(static_cast<std::size_t>(rows), 0) {}
  [[nodiscard]] std::span<char const> marks() const { return judged ? std::span<char const>(held_out) : std::span<char const>(); }
};

template <class Survey, host_backend B>
[[nodiscard]] lacking_rows survey_layer(calibrated_context<B>& at, decoder_layer const& layer, Survey& survey) {
  index_t const hidden = at.input.config.hidden;
  lacking_rows found(at.changed.all().extent(0), hidden);
  matrix_view<float const> original;
  at.watch_feed_forward(
      layer, survey,
      [&](index_t first, index_t count, bool judging) {
        survey.first_row = first * at.changed.sequence();
        original = at.original_rows(first, count);
        std::vector<float> const counts = token_counts(at.backend, original);
        survey.counts.insert(survey.counts.end(), counts.begin(), counts.end());
        found.judged = found.judged || judging;
        std::fill_n(found.held_out.begin() + survey.first_row, count * at.changed.sequence(), judging ? 1 : 0);
      },
      [&](matrix_view<float const> after) {
        if constexpr (requires { survey.every_row(index_t{}); }) survey.every_row(after.extent(0));
        for (index_t t = 0; t < after.extent(0); ++t)
          for (index_t j = 0; j < hidden; ++j)
            found.residual(survey.first_row + t, j) = survey.counts[static_cast<std::size_t>(survey.first_row + t)] * (original(t, j) - after(t, j));
      });
  return found;
}

// The writers that are fitted, and their values.
struct fitted_values {
  std::vector<writer_slot*> slots;
  std::vector<tensor<float, 2>> values;

  explicit fitted_values(layer_writers& writers) {
    for (writer_slot& slot : writers.slots)
      if (slot.column >= 0) {
        slots.push_back(&slot);
        values.push_back(expand(slot.now.view));
      }
  }
  // The place of writer k in routed_tokens.
  [[nodiscard]] std::size_t place(std::size_t k, layer_writers const& writers) const {
    return slots[k]->expert >= 0 ? static_cast<std::size_t>(slots[k]->expert) : writers.offsets.size() - 1;
  }
  void keep(std::vector<residual_fit_report> const& reports) {
    for (std::size_t k = 0; k < slots.size(); ++k) {
      slots[k]->report = fit_json(reports[k]);
      slots[k]->report["form"] = "expert by expert";
      if (reports[k].changed) slots[k]->now = own_weight(std::move(values[k]));
    }
  }
};

// Every down matrix fitted to what the others leave, a few times over. Features are made again from the stream whenever they
// are asked for: only one expert's Gram matrix, the residual and lists of tokens are held.
template <host_backend B>
void fit_by_experts(calibrated_context<B>& at, decoder_layer const& layer, layer_writers& writers) {
  matrix_view<float const> const X = at.changed.all();
  index_t const hidden = X.extent(1);
  features_survey survey(writers.offsets);
  lacking_rows lacking = survey_layer(at, layer, survey);
  bool const on_input = layer.moe && layer.moe->rule.weight_scales_input;
  fitted_values fitted(writers);
  std::vector<expert_features> experts;
  for (std::size_t k = 0; k < fitted.slots.size(); ++k) {
    std::size_t const place = fitted.place(k, writers);
    swiglu_weights const* const swiglu = fitted.slots[k]->swiglu;
    expert_features features;
    features.token_of = survey.tokens[place];
    features.weight = fitted.values[k].view();
    features.features = [&, place, swiglu](index_t first, matrix_view<float> Z) {
      index_t const n = Z.extent(0);
      tensor<float, 2> N(n, hidden), U(n, Z.extent(1));
      for (index_t t = 0; t < n; ++t) {
        float const* const from = &X(survey.tokens[place][static_cast<std::size_t>(first + t)], 0);
        std::copy_n(from, hidden, &N(t, 0));
      }
      rms_norm(at.backend, as_const(N.view()), layer.feed_forward_norm, at.input.config.rms_epsilon, N.view());
      auto const weight_of = [&](index_t t) { return survey.weights[place][static_cast<std::size_t>(first + t)]; };
      auto const count_of = [&](index_t t) {
        return survey.counts[static_cast<std::size_t>(survey.tokens[place][static_cast<std::size_t>(first + t)])];
      };
      auto const scale = [&](matrix_view<float> values_of, auto&& factor) {
        for (index_t t = 0; t < n; ++t)
          for (index_t j = 0; j < values_of.extent(1); ++j) values_of(t, j) *= factor(t);
      };
      if (on_input) scale(N.view(), weight_of);
      product(at.backend, as_const(N.view()), swiglu->gate.view, Z);
      product(at.backend, as_const(N.view()), swiglu->up.view, U.view());
      silu_multiply(at.backend, Z, as_const(U.view()));
      if (!on_input) scale(Z, weight_of);
      scale(Z, count_of);
    };
    experts.push_back(std::move(features));
  }
  expert_fit_options options{at.options.fit, at.options.fit_sweeps, stream_batch_tokens};
  // Ridges mean what they mean in the joint form: relative to the mean diagonal over all features.
  if (options.fit.unit == 0 && writers.features > 0) options.fit.unit = survey.squares / static_cast<double>(writers.features);
  fitted.keep(residual_fit_experts(at.backend, experts, lacking.residual.view(), lacking.marks(), options));
}

// The same on an accelerator, from the stream on.
template <host_backend B>
void fit_by_experts(accelerator& device, calibrated_context<B>& at, decoder_layer const& layer, layer_writers& writers) {
  routing_survey survey(writers.offsets);
  lacking_rows lacking = survey_layer(at, layer, survey);
  for (std::size_t slot = 0; slot < survey.tokens.size(); ++slot)
    for (std::size_t i = 0; i < survey.tokens[slot].size(); ++i)
      survey.weights[slot][i] *= survey.counts[static_cast<std::size_t>(survey.tokens[slot][i])];
  fitted_values fitted(writers);
  std::vector<fitted_writer> all;
  for (std::size_t k = 0; k < fitted.slots.size(); ++k) {
    std::size_t const place = fitted.place(k, writers);
    all.push_back({static_cast<index_t>(fitted.slots[k]->expert), survey.tokens[place], survey.weights[place], fitted.values[k].view()});
  }
  expert_fit_options const options{at.options.fit, at.options.fit_sweeps, stream_batch_tokens};
  fitted.keep(device.fit_experts(at.planned.config, layer, at.changed.all(), all, lacking.residual.view(), lacking.marks(), options));
}

template <host_backend B>
struct counting_hidden_observer : hidden_observer<B> {
  std::vector<double>* tokens = nullptr;
  [[nodiscard]] bool sums(gram_sums& wanted) {
    if (!hidden_observer<B>::sums(wanted)) return false;
    if (tokens != nullptr) wanted.tokens = tokens->data();
    return true;
  }
  void expert_hidden(index_t layer, expert_batch const& batch, matrix_view<float const> H) {
    if (tokens != nullptr) (*tokens)[static_cast<std::size_t>(batch.expert)] += static_cast<double>(H.extent(0));
    hidden_observer<B>::expert_hidden(layer, batch, H);
  }
};

template <host_backend B>
void slim_feed_forward_outputs(calibrated_context<B>& at, index_t i, decoder_layer& layer) {
  layer_writers writers = writers_of(at, i, layer);
  std::vector<writer_slot>& slots = writers.slots;
  if (slots.empty()) return;
  bool const has_common = slots.back().expert < 0;
  bool const shared_wanted = has_common && at.wants_hessian(slots.back().target);
  bool wanted = false;
  index_t widest = 0;
  std::vector<index_t> widths(layer.moe ? layer.moe->experts.size() : 0, 0);
  for (writer_slot const& slot : slots)
    if (slot.expert >= 0 && at.wants_hessian(slot.target)) {
      wanted = true;
      widths[static_cast<std::size_t>(slot.expert)] = slot.now.columns();
      widest = std::max(widest, slot.now.columns());
    }
  auto const joint = static_cast<std::uint64_t>(writers.features) * static_cast<std::uint64_t>(writers.features) * sizeof(float);
  std::optional<split_moments> fit;
  decoder_layer const before = layer;
  if (writers.features > 0 && joint > at.options.joint_bytes) {
    accelerator* device = nullptr;
    if constexpr (has_accelerator<B>) device = at.backend.lent();
    device != nullptr && device->fits_experts(before) ? fit_by_experts(*device, at, before, writers) : fit_by_experts(at, before, writers);
  } else if (writers.features > 0) {
    fit.emplace(writers.features, at.input.config.hidden);
  }

  index_t const experts = static_cast<index_t>(widths.size());
  index_t const flight = wanted ? at.experts_in_flight(widest, widths.size()) : std::max<index_t>(experts, 1);
  matrix<float> shared_hessian;
  if (shared_wanted) shared_hessian = zero_moments(slots.back().now.columns());
  double shared_tokens = 0;
  std::vector<double> tokens(widths.size(), 0.0);
  for (index_t first = 0; first == 0 || first < experts; first += flight) {
    index_t const count = std::min(flight, experts - first);
    std::vector<matrix<float>> hessians;
    if (wanted)
      for (index_t e = first; e < first + count; ++e) hessians.push_back(zero_moments(widths[static_cast<std::size_t>(e)]));
    if (wanted || (first == 0 && (fit || shared_wanted))) {
      counting_hidden_observer<B> observer;
      observer.tokens = first == 0 ? &tokens : nullptr;
      observer.backend = &at.backend;
      observer.first = first;
      observer.hessians = &hessians;
      observer.shared_hessian = first == 0 && shared_wanted ? &shared_hessian : nullptr;
      observer.weighted = at.options.affinity;
      observer.fit = first == 0 && fit ? &*fit : nullptr;
      observer.offsets = &writers.offsets;
      at.watch_feed_forward(
          before, observer,
          [&](index_t first_window, index_t windows, bool held_out) {
            if (observer.fit != nullptr) observer.original = at.original_rows(first_window, windows);
            observer.counts = at.counts_of(first_window, windows);
            observer.held_out = held_out;
            observer.begin();
          },
          [&](matrix_view<float const> X) {
            if (first == 0) shared_tokens += static_cast<double>(X.extent(0));
            observer.end(X);
          });
    }
    if (first == 0 && fit) {
      fit_jointly(at, *fit, slots);
      fit.reset();
    }
    for (writer_slot& slot : slots) {
      if (slot.expert < first || slot.expert >= first + count) continue;
      input_moments moments;
      if (wanted) moments.hessian = std::move(hessians[static_cast<std::size_t>(slot.expert - first)]);
      moments.tokens = wanted ? tokens[static_cast<std::size_t>(slot.expert)] : 0;
      *slot.slot = at.finish(slot.target, slot.now, wanted ? &moments : nullptr, slot.report);
    }
  }
  if (has_common) {
    input_moments moments;
    if (shared_wanted) moments.hessian = std::move(shared_hessian);
    moments.tokens = shared_tokens;
    *slots.back().slot = at.finish(slots.back().target, slots.back().now, shared_wanted ? &moments : nullptr, slots.back().report);
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
