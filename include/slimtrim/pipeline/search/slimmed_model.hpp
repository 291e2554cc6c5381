// A model as a plan would leave it, slim steps included, without writing anything.
#pragma once

#include <slimtrim/pipeline/calibrated_pass.hpp>
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/output_modules.hpp>
#include <slimtrim/pipeline/planned_model.hpp>
#include <slimtrim/pipeline/slim_matrix.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A weight source with some matrices rounded to a grid when they are asked for: nothing is kept. `scheme_of` gives the grid of a
/// module, or nothing. Scales are searched for least squared error (`scale_rule::mse`).
template <host_backend B>
class rounded_weights final : public weight_source {
 public:
  using scheme_rule = std::function<std::optional<packed_scheme>(module_id)>;
  rounded_weights(B const& backend, std::shared_ptr<weight_source const> inner, scheme_rule scheme_of)
      : backend_(backend), inner_(std::move(inner)), scheme_of_(std::move(scheme_of)) {}

  [[nodiscard]] bool has(module_id id) const override { return inner_->has(id); }
  [[nodiscard]] weight matrix(module_id id) const override {
    weight whole = inner_->matrix(id);
    std::optional<packed_scheme> const scheme = scheme_of_(id);
    if (!scheme) return whole;
    tensor<float, 2> const values = expand(whole.view);
    auto held = std::make_shared<quantized_matrix>(rtn(backend_, values.view(), quantizer_of(*scheme, scale_rule::mse)));
    weight result;
    result.view = held->view();
    result.storage = std::move(held);
    return result;
  }
  [[nodiscard]] std::vector<float> vector(module_id id) const override { return inner_->vector(id); }
  void release(index_t layer) const override { inner_->release(layer); }
  void prefetch(module_id id) const override { inner_->prefetch(id); }

 private:
  B const& backend_;
  std::shared_ptr<weight_source const> inner_;
  scheme_rule scheme_of_;
};

/// A weight source with some matrices replaced.
class replaced_weights final : public weight_source {
 public:
  using replacements = std::map<std::tuple<int, index_t, index_t>, weight>;
  replaced_weights(std::shared_ptr<weight_source const> inner, replacements by) : inner_(std::move(inner)), by_(std::move(by)) {}

  [[nodiscard]] static std::tuple<int, index_t, index_t> key(module_id id) { return {static_cast<int>(id.role), id.layer, id.expert}; }
  [[nodiscard]] bool has(module_id id) const override { return inner_->has(id); }
  [[nodiscard]] weight matrix(module_id id) const override {
    auto const at = by_.find(key(id));
    return at == by_.end() ? inner_->matrix(id) : at->second;
  }
  [[nodiscard]] std::vector<float> vector(module_id id) const override { return inner_->vector(id); }
  void release(index_t layer) const override { inner_->release(layer); }
  void prefetch(module_id id) const override {
    if (by_.count(key(id)) == 0) inner_->prefetch(id);
  }

 private:
  std::shared_ptr<weight_source const> inner_;
  replacements by_;
};

/// `input` as `p` trims and slims it, computed as `compress` computes it. windows: calibration tokens, for the steps that work on
/// them. Memory: the slimmed matrices, packed, besides what `slim_calibrated` needs. Errors as `compress`.
template <host_backend B>
[[nodiscard]] opened_model slimmed_model(B const& backend, opened_model const& input, plan const& p, token_windows const& windows,
                                         calibrated_options const& options = {}) {
  opened_model result = planned_model(input, p);
  output_modules const modules = list_output_modules(
      *input.files, input.config, p, input.config.storage == dtype::float16 ? scale_type::float16 : scale_type::bfloat16);
  replaced_weights::replacements by;
  auto const keep = [&](slimmed_module const& m, slim_result const& made) { by[replaced_weights::key(m.to)] = slimmed_weight(made); };
  bool const calibrated = needs_calibrated_pass(modules);
  if (calibrated) slim_calibrated(backend, input, p, modules, windows, keep, options);
  for (slimmed_module const& m : modules.slimmed) {
    bool const in_layers = is_attention_role(m.from.role) || is_feed_forward_role(m.from.role);
    if (calibrated && in_layers && m.from.role != module_role::router) continue;
    keep(m, slim_matrix(backend, result.weights->matrix(m.to).view, m));
  }
  result.weights = std::make_shared<replaced_weights>(result.weights, std::move(by));
  return result;
}

}  // namespace v0
}  // namespace slimtrim
