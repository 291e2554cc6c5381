// The feed-forward part in the calibrated pass: the fit expert by expert tends to the joint one, matrices that are not asked for
// stay out of it, and it says which form it took.
#include <slimtrim/pipeline/calibrated_feed_forward.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace pipeline_calibrated_feed_forward_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

struct synthetic {
  explicit synthetic(std::string const& family = "mixtral") {
    write_synthetic(folder.path() / "m", {.family = family, .layers = 2, .hidden = 24, .intermediate = 12, .experts = 4, .heads = 2,
                                          .vocabulary = 2048, .shared_experts = 1});
    model = open_model(folder.path() / "m");
  }
  temporary_folder folder;
  opened_model model;
};

// Layer 0 rounded to two bits but for what writes into the stream there, which is re-fitted: the fit of one layer alone.
struct fitted {
  std::map<std::string, tensor<float, 2>> down;
  ordered_json report;
};

plan fit_plan(opened_model const& model, index_t layer) {
  plan p = slim_plan(model.config, "rtn:2g12+recover");
  p.slimming[0].targets = {"*.w1.*", "*.w3.*", "*gate_proj*", "*up_proj*"};
  p.slimming[1].targets = {"experts", "shared_experts", "dense"};
  p.slimming[0].layers = p.slimming[1].layers = {layer};
  return p;
}

fitted fit(opened_model const& model, plan const& p, token_windows const& data, calibrated_options const& options, index_t threads = 1) {
  fitted result;
  slim_on_windows(
      model, p, data,
      [&](slimmed_module const& m, slim_result const& r) {
        if (!r.dense) return;
        result.down.emplace(m.stem, expand(slimmed_weight(r).view));
        result.report = r.report;
      },
      options, threads);
  return result;
}

double distance(fitted const& a, fitted const& b) {
  double sum = 0;
  for (auto const& [name, W] : a.down) {
    tensor<float, 2> const& V = b.down.at(name);
    for (index_t i = 0; i < W.extent(0); ++i)
      for (index_t j = 0; j < W.extent(1); ++j)
        sum += static_cast<double>(W(i, j) - V(i, j)) * static_cast<double>(W(i, j) - V(i, j));
  }
  return std::sqrt(sum);
}

fitted unchanged(opened_model const& model, fitted const& like) {
  fitted result;
  for (auto const& [name, W] : like.down) {
    for_each_module(model.config, [&, stem = name](module_id id) {
      if (is_matrix_role(id.role) && module_stem(*model.config.family, id) == stem) result.down.emplace(stem, expand(model.weights->matrix(id).view));
    });
  }
  return result;
}

}  // namespace

TEST_CASE("expert by expert tends to the joint fit") {
  for (std::string const family : {"mixtral", "deepseek"}) {
    CAPTURE(family);
    synthetic const s(family);
    token_windows const data = train_windows(3, 32);  // fewer than four batches: no token is held out
    index_t const layer = 1;
    plan const p = fit_plan(s.model, layer);
    calibrated_options joint, one, many;
    joint.fit.ridges = one.fit.ridges = many.fit.ridges = {0.1};
    one.joint_bytes = many.joint_bytes = 0;
    one.fit_sweeps = 1;
    many.fit_sweeps = 30;
    fitted const together = fit(s.model, p, data, joint), first = fit(s.model, p, data, one), last = fit(s.model, p, data, many);
    double const moved = distance(together, unchanged(s.model, together));
    MESSAGE("joint moves ", moved, "; apart after one sweep ", distance(together, first), ", after thirty ", distance(together, last));
    CHECK(moved > 0);
    CHECK(distance(together, first) < 0.7 * moved);
    // Weights are rounded to bfloat16 at the end.
    CHECK(distance(together, last) < 0.05 * moved);
    CHECK(together.report.at("fit").at("form") == "joint");
    CHECK(last.report.at("fit").at("form") == "expert by expert");
    CHECK(distance(first, fit(s.model, p, data, one, 2)) == 0);
  }
}

TEST_CASE("experts that are not asked for are not part of the fit") {
  synthetic const s;
  token_windows const data = train_windows(3, 32);
  plan p = fit_plan(s.model, 1);
  p.slimming[1].targets = {"*.experts.1.w2.*"};
  for (std::uint64_t const bytes : {std::uint64_t{1} << 30, std::uint64_t{0}}) {
    fitted const some = fit(s.model, p, data, {.joint_bytes = bytes});
    REQUIRE(some.down.size() == 1);
    CHECK(some.down.begin()->first == "model.layers.1.block_sparse_moe.experts.1.w2");
  }
}

}  // namespace pipeline_calibrated_feed_forward_test
