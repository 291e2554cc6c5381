// A model as a plan would leave it, without writing anything: the input's weights seen through the plan's trimming.
#pragma once

#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/plan.hpp>
#include <slimtrim/trim/expert_merge.hpp>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The weights of the modules that stay, by their planned numbers. Router rows are gathered, averages of experts and
/// matrices with fewer neurons are made anew at every call (memory: the members as floats); everything else is the input's own
/// weight.
class planned_weights final : public weight_source {
 public:
  planned_weights(opened_model input, plan p) : input_(std::move(input)), plan_(std::move(p)) {
    for (index_t i = 0; i < input_.config.layer_count(); ++i)
      if (plan_.layer(i).block) sources_.push_back(i);
  }

  [[nodiscard]] bool has(module_id id) const override {
    module_id const from = source_of(id);
    if (is_expert_role(id.role) && plan_.layer(from.layer).find_novice(from.expert) != nullptr)
      return id.role == module_role::novice;
    return input_.weights->has(from);
  }

  [[nodiscard]] weight matrix(module_id id) const override {
    module_id const from = source_of(id);
    if (is_expert_matrix_role(id.role) && plan_.layer(from.layer).changes_weights(from.expert)) return own_weight(changed(from));
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
    if (id.role == module_role::novice)
      if (novice const* const planned = plan_.layer(from.layer).find_novice(from.expert)) return planned->constant;
    std::vector<float> const whole = input_.weights->vector(from);
    if (id.role != module_role::router_bias) return whole;
    std::vector<float> some;
    for (index_t const expert : plan_.layer(from.layer).experts) some.push_back(whole[static_cast<std::size_t>(expert)]);
    return some;
  }

  void release(index_t layer) const override { input_.weights->release(sources_[static_cast<std::size_t>(layer)]); }
  void prefetch(module_id id) const override {
    module_id const from = source_of(id);
    merge_group const* const group =
        is_expert_matrix_role(id.role) ? plan_.layer(from.layer).find_merge(from.expert) : nullptr;
    if (group == nullptr) return input_.weights->prefetch(from);
    for (index_t const expert : group->members) input_.weights->prefetch({from.role, from.layer, expert});
  }

 private:
  [[nodiscard]] module_id source_of(module_id id) const {
    if (!is_attention_role(id.role) && !is_feed_forward_role(id.role)) return id;
    module_id from = id;
    from.layer = sources_[static_cast<std::size_t>(id.layer)];
    if (is_expert_role(id.role))
      from.expert = plan_.layer(from.layer).experts[static_cast<std::size_t>(id.expert)];
    return from;
  }

  [[nodiscard]] static tensor<float, 2> some_neurons(tensor<float, 2> const& whole, std::vector<index_t> const& kept,
                                                     module_role role) {
    auto const width = static_cast<index_t>(kept.size());
    bool const down = role == module_role::down;
    tensor<float, 2> some(down ? whole.extent(0) : width, down ? width : whole.extent(1));
    for (index_t i = 0; i < some.extent(0); ++i)
      for (index_t j = 0; j < some.extent(1); ++j)
        some(i, j) = down ? whole(i, kept[static_cast<std::size_t>(j)]) : whole(kept[static_cast<std::size_t>(i)], j);
    return some;
  }

  // The checkpoint's matrix, without the neurons that went from this very expert.
  [[nodiscard]] tensor<float, 2> member(module_id from, bool sliced) const {
    tensor<float, 2> whole = expand(input_.weights->matrix(from).view);
    if (!sliced) return whole;
    auto const& neurons = plan_.layer(from.layer).neurons;
    auto const kept = neurons.find(from.expert);
    return kept == neurons.end() ? std::move(whole) : some_neurons(whole, kept->second, from.role);
  }

  [[nodiscard]] tensor<float, 2> changed(module_id from) const {
    layer_plan const& layer = plan_.layer(from.layer);
    merge_group const* const group = layer.find_merge(from.expert);
    if (group == nullptr) return member(from, true);
    bool const before = layer.sliced_before(*group);
    std::vector<tensor<float, 2>> members;
    std::vector<matrix_view<float const>> views;
    for (index_t const expert : group->members) members.push_back(member({from.role, from.layer, expert}, before));
    for (tensor<float, 2> const& each : members) views.push_back(each.view());
    std::vector<std::vector<index_t>> const as_they_are(members.size());
    tensor<float, 2> average(views.front().extent(0), views.front().extent(1));
    average_experts(views, group->weights, group->orders.empty() ? as_they_are : group->orders,
                    from.role == module_role::down ? neuron_axis::columns : neuron_axis::rows, average.view());
    auto const kept = layer.neurons.find(from.expert);
    return before || kept == layer.neurons.end() ? std::move(average) : some_neurons(average, kept->second, from.role);
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
