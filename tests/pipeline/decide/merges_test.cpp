// Experts that become one: averages by hand, nested groups, and the model that is written.
#include <slimtrim/pipeline/decide/merges.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace pipeline_decide_merges_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("an average of members, neuron by neuron") {
  plan p = keep_everything(bundled().config);
  std::vector<index_t> turned(256);
  for (index_t k = 0; k < 256; ++k) turned[static_cast<std::size_t>(k)] = 255 - k;
  p.layer(1).experts = {0, 1, 2, 4, 5, 6, 7};
  p.layer(1).merges = {{4, {3, 4}, {0.25, 0.75}, {turned, {}}}};
  check_plan(p, bundled().config, "p");
  opened_model const seen = planned_model(bundled(), p);
  for (module_role const role : {module_role::gate, module_role::down}) {
    tensor<float, 2> const a = expand(bundled().weights->matrix({role, 1, 3}).view), b = expand(bundled().weights->matrix({role, 1, 4}).view);
    tensor<float, 2> const made = expand(seen.weights->matrix({role, 1, 3}).view);
    for (index_t i = 0; i < made.extent(0); i += 7)
      for (index_t j = 0; j < made.extent(1); j += 5) {
        float const other = role == module_role::down ? a(i, 255 - j) : a(255 - i, j);
        CHECK_UNARY(made(i, j) == static_cast<float>(0.25 * static_cast<double>(other) + 0.75 * static_cast<double>(b(i, j))));
      }
  }
  // An expert averaged with its own copy in another order is itself.
  opened_model const twins = changed_model(bundled(), [&](module_id id, matrix_view<float> W) {
    if (id.layer != 1 || id.expert != 3 || !(id.role == module_role::gate || id.role == module_role::up || id.role == module_role::down)) return false;
    tensor<float, 2> const other = expand(bundled().weights->matrix({id.role, 1, 4}).view);
    for (index_t i = 0; i < W.extent(0); ++i)
      for (index_t j = 0; j < W.extent(1); ++j) W(i, j) = id.role == module_role::down ? other(i, 255 - j) : other(255 - i, j);
    return true;
  });
  tensor<float, 2> const same = expand(planned_model(twins, p).weights->matrix({module_role::up, 1, 3}).view);
  tensor<float, 2> const original = expand(bundled().weights->matrix({module_role::up, 1, 4}).view);
  for (index_t j = 0; j < 128; ++j) CHECK_UNARY(same(9, j) == original(9, j));
  // The decision finds that order by itself.
  token_windows const windows = train_windows(2, 48);
  plan const found = decide_plan("expert_merge:2/8@ream", {.model = &twins, .data = &windows});
  for (merge_group const& group : found.layer(1).merges) {
    auto const at = [&](index_t e) { return std::lower_bound(group.members.begin(), group.members.end(), e) - group.members.begin(); };
    bool const both = std::binary_search(group.members.begin(), group.members.end(), 3) && std::binary_search(group.members.begin(), group.members.end(), 4);
    if (both && group.kept == 4) CHECK(group.orders[static_cast<std::size_t>(at(3))] == turned);
    if (both && group.kept == 3) CHECK(group.orders[static_cast<std::size_t>(at(4))] == turned);
  }
}

TEST_CASE("groups of groups") {
  layer_plan layer;
  layer.experts = {0, 2, 5};
  layer.merges = {{0, {0, 1}, {0.5, 0.5}, {{}, {2, 0, 1}}}, {2, {2, 3}, {0.25, 0.75}, {}}};
  merge_group const flat = detail::flatten({2, {0, 2, 5}, {0.2, 0.4, 0.4}, {{1, 2, 0}, {}, {}}}, layer);
  CHECK(flat.kept == 2);
  CHECK(flat.members == std::vector<index_t>{0, 1, 2, 3, 5});
  CHECK(flat.weights[0] == doctest::Approx(0.1));
  CHECK(flat.weights[3] == doctest::Approx(0.3));
  CHECK(flat.weights[4] == doctest::Approx(0.4));
  REQUIRE(flat.orders.size() == 5);
  CHECK(flat.orders[0] == std::vector<index_t>{1, 2, 0});
  // Neuron k of the result is neuron outer[k] of 0, which is neuron inner[outer[k]] of 1.
  CHECK(flat.orders[1] == std::vector<index_t>{0, 1, 2});
  CHECK(flat.orders[4].empty());
}

TEST_CASE("recipes of merges, alone and with other steps") {
  token_windows const windows = train_windows(3, 48), held = valid_windows(2, 40);
  model_statistics const statistics = calibrate_model(bundled(), windows);
  decide_inputs const inputs{.model = &bundled(), .statistics = &statistics, .data = &windows};
  temporary_folder const folder;
  compress_options options;
  options.data = &windows;
  int made = 0;
  for (std::string const recipe : {"expert_merge:6/8@average", "expert_merge:6/8@hc_smoe", "expert_merge:6/8@ream", "neuron_drop:128+expert_merge:6/8",
                                   "expert_merge:6/8@hc_smoe+neuron_drop:128+rtn:4g64", "expert_merge:7/8+expert_merge:6/8@ream+recover"}) {
    CAPTURE(recipe);
    plan const p = decide_plan(recipe, inputs);
    for (layer_plan const& layer : p.layers) {
      CHECK(layer.experts.size() == 6);
      std::size_t members = layer.experts.size();
      for (merge_group const& group : layer.merges) members += group.members.size() - 1;
      CHECK(members == 8);
    }
    std::string const name = std::to_string(made++);
    compress_model(bundled(), p, folder.path() / name, options);
    opened_model const out = open_model(folder.path() / name), seen = planned_model(bundled(), p);
    CHECK(out.config.layer(4).experts == 6);
    CHECK(out.config.layer(4).original_experts == p.layer(4).experts);
    double const kl = evaluate_model(out, &seen, held).kl_mean;
    // Alone: only the rounding of averages to bfloat16 lies between what is shown and what is written.
    if (p.slimming.empty()) CHECK(kl < 1e-3);
  }
  CHECK(message_of<error>([&] { static_cast<void>(decide_plan("expert_merge:1/8", inputs)); }) != "nothing thrown");
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("expert_merge:7/8+neuron_drop:128+expert_merge:6/8", inputs)); }), "in another order"));
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("neuron_drop:128+expert_merge:6/8+neuron_drop:64", inputs)); }), "found both"));
}

}  // namespace pipeline_decide_merges_test
