// A model as a plan would leave it, without writing anything: the input's weights seen through the plan's trimming.
#pragma once

#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/plan.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The weights of the modules that stay, by their planned numbers. Router rows are gathered; everything else is the
/// input's own weight.
class planned_weights final : public weight_source {
 public:
  planned_weights(opened_model input, plan p) : input_(std::move(input)), plan_(std::move(p)) {
    for (index_t i = 0; i < input_.config.layer_count(); ++i)
      if (plan_.layer(i).block) sources_.push_back(i);
  }

  [[nodiscard]] bool has(module_id id) const override { return input_.weights->has(source_of(id)); }

  [[nodiscard]] weight matrix(module_id id) const override {
    module_id const from = source_of(id);
    weight const whole = input_.weights->matrix(from);
    if (id.role != module_role::router) return whole;
    std::vector<index_t> const& kept = plan_.layer(from.layer).experts;
    if (static_cast<index_t>(kept.size()) == whole.rows()) return whole;
    tensor<float, 2> some(static_cast<index_t>(kept.size()), whole.columns());
    for (std::size_t e = 0; e < kept.size(); ++e)
      expand_rows(whole.view, kept[e], rows(some.view(), static_cast<index_t>(e), 1));
    return own_weight(std::move(some));
  }

  [[nodiscard]] std::vector<float> vector(module_id id) const override {
    module_id const from = source_of(id);
    std::vector<float> const whole = input_.weights->vector(from);
    if (id.role != module_role::router_bias) return whole;
    std::vector<float> some;
    for (index_t const expert : plan_.layer(from.layer).experts) some.push_back(whole[static_cast<std::size_t>(expert)]);
    return some;
  }

  void release(index_t layer) const override { input_.weights->release(sources_[static_cast<std::size_t>(layer)]); }

 private:
  [[nodiscard]] module_id source_of(module_id id) const {
    if (!is_attention_role(id.role) && !is_feed_forward_role(id.role)) return id;
    module_id from = id;
    from.layer = sources_[static_cast<std::size_t>(id.layer)];
    if (is_expert_role(id.role))
      from.expert = plan_.layer(from.layer).experts[static_cast<std::size_t>(id.expert)];
    return from;
  }

  opened_model input_;
  plan plan_;
  std::vector<index_t> sources_;
};

/// `input` as `p` trims it; slim steps are not applied. Cheap: no weight is read.
[[nodiscard]] inline opened_model planned_model(opened_model const& input, plan const& p) {
  opened_model result = input;
  result.config = planned_config(input.config, p);
  result.weights = std::make_shared<planned_weights>(input, p);
  return result;
}

}  // namespace v0
}  // namespace slimtrim
