// The attention part of one decoder layer in the calibrated pass: query, key and value on the normalised stream, then output
// on the context, re-fitted first to what the original stream has more.
#pragma once

#include <slimtrim/pipeline/calibrated_context.hpp>

#include <optional>
#include <utility>

namespace slimtrim {
inline namespace v0 {
namespace detail {

template <host_backend B>
void slim_attention_inputs(calibrated_context<B>& at, index_t i, decoder_layer& layer) {
  std::pair<slimmed_module const*, weight*> const targets[3] = {{at.find(module_role::query, i), &layer.attention->query},
                                                                {at.find(module_role::key, i), &layer.attention->key},
                                                                {at.find(module_role::value, i), &layer.attention->value}};
  bool wanted = false;
  for (auto const& [target, slot] : targets) wanted = wanted || at.wants_hessian(target);
  input_moments moments;
  if (wanted) moments = at.normed_moments(layer.attention->norm);
  for (auto const& [target, slot] : targets) {
    input_moments own;
    if (wanted) own.hessian = moments.hessian.clone();
    own.tokens = moments.tokens;
    *slot = at.finish(target, *slot, wanted ? &own : nullptr);
  }
}

template <host_backend B>
void slim_attention_output(calibrated_context<B>& at, index_t i, decoder_layer& layer) {
  slimmed_module const* const target = at.find(module_role::output, i);
  if (target == nullptr) return;
  index_t const in = layer.attention->output.columns(), out = layer.attention->output.rows();
  bool const wanted = at.wants_hessian(target);
  input_moments moments;
  if (wanted) moments.hessian = zero_moments(in);
  std::optional<split_moments> fit;
  if (at.wants_fit(target)) fit.emplace(in, out);
  if (wanted || fit) {
    context_observer<B> observer;
    observer.backend = &at.backend;
    observer.hessian = wanted ? &moments.hessian : nullptr;
    observer.fit = fit ? &*fit : nullptr;
    at.watch_attention(layer, observer, [&](index_t first, index_t count, bool held_out) {
      if (fit) observer.original = at.original_rows(first, count);
      observer.counts = at.counts_of(first, count);
      observer.held_out = held_out;
      moments.tokens += static_cast<double>(count * at.changed.sequence());
    });
  }
  ordered_json report;
  weight now = layer.attention->output;
  if (fit) {
    tensor<float, 2> values = expand(now.view);
    report = fit_json(fit_split(at.backend, *fit, values.view(), at.options.fit));
    now = own_weight(std::move(values));
  }
  layer.attention->output = at.finish(target, now, wanted ? &moments : nullptr, report);
}

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
