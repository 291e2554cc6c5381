// AWQ's channel scales of one decoder layer, before anything of it is rounded: searched on the Hessians of the layer's
// inputs, folded into whatever makes them, and into *everything* that reads them.
//
//   value -> output            rows of value, heads that share a value head share its scales
//   attention norm -> query, key, value
//   up -> down                 of each expert, shared and dense ones too
//   feed-forward norm -> router, gate and up of all experts and of the shared one
//
// The layer then stands for the same function, so all that follows (Hessians, fits, any method) simply sees another layer.
#pragma once

#include <slimtrim/pipeline/calibrated_context.hpp>
#include <slimtrim/pipeline/fold_scales.hpp>

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace detail {

template <host_backend B>
class layer_folding {
 public:
  layer_folding(calibrated_context<B>& at, index_t layer) : at_(at), layer_(layer) {}

  void attention(attention_weights& a, decoder_layer const& whole) {
    slimmed_module const* const output = at_.find(module_role::output, layer_);
    if (wants_scales(output) && scalable(module_role::value)) {
      context_observer<B> observer;
      matrix<float> hessian = zero_moments(a.output.columns());
      observer.backend = &at_.backend;
      observer.hessian = &hessian;
      at_.watch_attention(whole, observer, [](index_t, index_t, bool) {});
      model_config const& config = at_.planned.config;
      index_t const dim = config.head_dim, group = config.heads / config.key_value_heads;
      std::vector<index_t> row_of;
      for (index_t j = 0; j < a.output.columns(); ++j) row_of.push_back(j / dim / group * dim + j % dim);
      rows_into(module_role::value, 0, a.value, row_of, *output, a.output, hessian);
    }
    std::vector<reader> readers;
    add(readers, module_role::query, 0, a.query);
    add(readers, module_role::key, 0, a.key);
    add(readers, module_role::value, 0, a.value);
    if (takes_scales(readers)) {
      input_moments const moments = at_.normed_moments(a.norm);
      for (reader& r : readers) r.hessian = &moments.hessian;
      norm_into(module_role::attention_norm, a.norm, readers);
    }
    hand_out();
  }

  void feed_forward(decoder_layer& layer) {
    if (layer.moe) experts_hidden(layer);
    if (layer.dense) common_hidden(module_role::dense_up, module_role::dense_down, *layer.dense, layer);
    if (layer.moe && layer.moe->shared)
      common_hidden(module_role::shared_up, module_role::shared_down, *layer.moe->shared, layer);
    std::vector<reader> readers;
    if (layer.dense) {
      add(readers, module_role::dense_gate, 0, layer.dense->gate);
      add(readers, module_role::dense_up, 0, layer.dense->up);
    }
    if (layer.moe) {
      for (std::size_t e = 0; e < layer.moe->experts.size(); ++e) {
        expert_weights& expert = layer.moe->experts[e];
        if (expert.is_novice()) continue;
        add(readers, module_role::gate, at_.expert_of(layer_, e), expert.swiglu.gate, e);
        add(readers, module_role::up, at_.expert_of(layer_, e), expert.swiglu.up, e);
      }
      if (layer.moe->shared) {
        add(readers, module_role::shared_gate, 0, layer.moe->shared->gate);
        add(readers, module_role::shared_up, 0, layer.moe->shared->up);
      }
      // The router reads the norm as well. It is never in the search, and always among those that are multiplied.
      add(readers, module_role::router, 0, layer.moe->router);
    }
    if (takes_scales(readers)) {
      std::vector<matrix<float>> hessians;
      input_moments pooled;
      collect_inputs(layer, readers, hessians, pooled);
      for (reader& r : readers)
        r.hessian = r.expert && !hessians.empty() ? &hessians[*r.expert] : &pooled.hessian;
      norm_into(module_role::feed_forward_norm, layer.feed_forward_norm, readers);
    }
    hand_out();
  }

 private:
  struct reader {
    module_id id{};
    weight* slot = nullptr;
    slimmed_module const* target = nullptr;
    std::optional<std::size_t> expert{};  // by its place in the layer
    matrix<float> const* hessian = nullptr;
  };

  void add(std::vector<reader>& readers, module_role role, index_t expert, weight& slot, std::optional<std::size_t> place = {}) {
    readers.push_back({{role, layer_, expert}, &slot, at_.find(role, layer_, expert), place, nullptr});
  }

  // The type in which a module that stays dense is stored; absent when it is not a plain tensor of the input.
  [[nodiscard]] std::optional<dtype> stored_type(module_id id) const {
    tensor_info const* const tensor = at_.input.files->find(module_name(*at_.input.config.family, id));
    if (tensor == nullptr) return {};
    if (tensor->type != dtype::float32 && tensor->type != dtype::float16 && tensor->type != dtype::bfloat16) return {};
    return tensor->type;
  }
  // Whether a module can take scales: it is slimmed later in this pass, or is a dense tensor that can be written anew.
  [[nodiscard]] bool scalable(module_role role, index_t expert = 0) const {
    module_id const id{role, layer_, expert};
    if (at_.find(role, layer_, expert) != nullptr) return role != module_role::router;
    return stored_type(id).has_value();
  }
  [[nodiscard]] bool takes_scales(std::vector<reader> const& readers) const {
    bool wanted = false;
    for (reader const& r : readers) {
      wanted = wanted || wants_scales(r.target);
      if (!scalable(r.id.role, r.id.expert)) return false;
    }
    // A tensor that the family does not know may read the norm too.
    std::string const pattern(at_.input.config.family->pattern(module_role::attention_norm));
    std::string const prefix = pattern.substr(0, std::min(pattern.find("{layer}"), pattern.size())) + std::to_string(layer_) + ".";
    for (std::string const& name : at_.passed_through)
      if (name.compare(0, prefix.size(), prefix) == 0) return false;
    return wanted;
  }
  [[nodiscard]] static bool powers_wanted(slimmed_module const* m) {
    return m != nullptr && std::any_of(m->steps.begin(), m->steps.end(), [](step const& s) {
             return s.quantization.scales == channel_scales::power_of_two;
           });
  }
  [[nodiscard]] scaled_reader as_reader(reader const& r) const {
    scaled_reader result;
    result.slot = r.slot;
    if (wants_scales(r.target)) {
      result.rounding = quantizer_of(*r.target->scheme, scale_rule::absmax);
      result.hessian = r.hessian;
    }
    if (r.target == nullptr) result.stored = stored_type(r.id);
    return result;
  }
  [[nodiscard]] static ordered_json note(awq_scales const& found) {
    return ordered_json{{"exponent", found.ratio}, {"error_plain", found.error_plain}, {"error", found.error}};
  }

  void norm_into(module_role role, std::vector<float>& norm, std::vector<reader> const& readers) {
    std::optional<dtype> const type = stored_type({role, layer_, 0});
    if (!type) return;
    std::vector<scaled_reader> all;
    folding_options folding;
    for (reader const& r : readers) {
      all.push_back(as_reader(r));
      folding.power_of_two = folding.power_of_two || powers_wanted(r.target);
    }
    awq_scales const found = fold_norm_scales(at_.backend, norm, *type, all, folding);
    for (reader const& r : readers)
      if (wants_scales(r.target)) at_.notes[at_.key(r.id)]["of_norm"] = note(found);
    if (found.ratio < 0) return;
    index_t const shape[2] = {1, static_cast<index_t>(norm.size())}, strides[2] = {shape[1], 1};
    at_.folded({role, layer_, 0}, matrix_view<float const>(norm.data(), shape, strides));
    for (reader const& r : readers)
      if (r.target == nullptr) dense_[at_.key(r.id)] = {r.id, r.slot};
  }

  void rows_into(module_role role, index_t expert, weight& producer, std::vector<index_t> const& row_of,
                 slimmed_module const& target, weight& slot, matrix<float> const& hessian) {
    module_id const id{role, layer_, expert};
    bool const stays = at_.find(role, layer_, expert) == nullptr;
    reader const of{target.from, &slot, &target, {}, &hessian};
    awq_scales const found = fold_row_scales(at_.backend, producer, stays ? stored_type(id) : std::nullopt, row_of,
                                             as_reader(of), {.power_of_two = powers_wanted(&target)});
    at_.notes[at_.key(target.from)]["of_rows"] = note(found);
    if (stays && found.ratio >= 0) dense_[at_.key(id)] = {id, &producer};
  }

  [[nodiscard]] static std::vector<index_t> each_row(index_t n) {
    std::vector<index_t> rows_of(static_cast<std::size_t>(n));
    for (index_t j = 0; j < n; ++j) rows_of[static_cast<std::size_t>(j)] = j;
    return rows_of;
  }

  // Between up and down of every expert, as many experts at a time as the budget holds.
  void experts_hidden(decoder_layer& layer) {
    std::vector<expert_weights>& experts = layer.moe->experts;
    index_t const count = static_cast<index_t>(experts.size());
    auto const target_of = [&](index_t e) -> slimmed_module const* {
      index_t const original = at_.expert_of(layer_, static_cast<std::size_t>(e));
      slimmed_module const* const m = at_.find(module_role::down, layer_, original);
      return experts[static_cast<std::size_t>(e)].is_novice() || !wants_scales(m) || !scalable(module_role::up, original) ? nullptr : m;
    };
    index_t widest = 0;
    for (index_t e = 0; e < count; ++e)
      if (target_of(e) != nullptr) widest = std::max(widest, experts[static_cast<std::size_t>(e)].swiglu.width());
    if (widest == 0) return;
    decoder_layer const before = layer;
    index_t const flight = at_.experts_in_flight(widest, experts.size());
    for (index_t first = 0; first < count; first += flight) {
      index_t const last = std::min(count, first + flight);
      std::vector<matrix<float>> hessians;
      for (index_t e = first; e < last; ++e)
        hessians.push_back(zero_moments(target_of(e) != nullptr ? experts[static_cast<std::size_t>(e)].swiglu.width() : 0));
      hidden_observer<B> observer;
      observer.backend = &at_.backend;
      observer.first = first;
      observer.hessians = &hessians;
      observer.weighted = at_.options.affinity;
      at_.watch_feed_forward(before, observer, [](index_t, index_t, bool) {}, [](matrix_view<float const>) {});
      for (index_t e = first; e < last; ++e) {
        if (target_of(e) == nullptr) continue;
        swiglu_weights& swiglu = experts[static_cast<std::size_t>(e)].swiglu;
        rows_into(module_role::up, at_.expert_of(layer_, static_cast<std::size_t>(e)), swiglu.up, each_row(swiglu.width()),
                  *target_of(e), swiglu.down, hessians[static_cast<std::size_t>(e - first)]);
      }
    }
  }

  // The same for the shared expert or the dense part.
  void common_hidden(module_role up, module_role down, swiglu_weights& swiglu, decoder_layer const& layer) {
    slimmed_module const* const target = at_.find(down, layer_);
    if (!wants_scales(target) || !scalable(up)) return;
    matrix<float> hessian = zero_moments(swiglu.width());
    hidden_observer<B> observer;
    observer.backend = &at_.backend;
    observer.shared_hessian = &hessian;
    at_.watch_feed_forward(layer, observer, [](index_t, index_t, bool) {}, [](matrix_view<float const>) {});
    rows_into(up, 0, swiglu.up, each_row(swiglu.width()), *target, swiglu.down, hessian);
  }

  // Hessians of the normalised stream: of all tokens, and of each expert's own where all of them fit the budget together.
  void collect_inputs(decoder_layer const& layer, std::vector<reader> const& readers, std::vector<matrix<float>>& hessians,
                      input_moments& pooled) {
    std::size_t const experts = layer.moe ? layer.moe->experts.size() : 0;
    index_t const hidden = at_.input.config.hidden;
    bool const own = std::any_of(readers.begin(), readers.end(), [](reader const& r) { return r.expert && wants_scales(r.target); }) &&
                     at_.experts_in_flight(hidden, experts) >= static_cast<index_t>(experts);
    if (!own) {
      pooled = at_.normed_moments(layer.feed_forward_norm);
      return;
    }
    pooled.hessian = zero_moments(hidden);
    for (std::size_t e = 0; e < experts; ++e) hessians.push_back(zero_moments(hidden));
    std::vector<double> tokens(experts, 0.0);
    expert_input_observer<B> observer;
    observer.backend = &at_.backend;
    observer.hessians = &hessians;
    observer.tokens = &tokens;
    observer.pooled = &pooled.hessian;
    observer.weighted = at_.options.affinity;
    at_.watch_feed_forward(layer, observer, [](index_t, index_t, bool) {}, [](matrix_view<float const>) {});
  }

  // Dense matrices that took scales, each once.
  void hand_out() {
    for (auto const& [key, changed] : dense_) {
      tensor<float, 2> const values = expand(changed.second->view);
      at_.folded(changed.first, values.view());
    }
    dense_.clear();
  }

  calibrated_context<B>& at_;
  index_t layer_;
  std::map<typename calibrated_context<B>::module_key, std::pair<module_id, weight*>> dense_{};
};

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
