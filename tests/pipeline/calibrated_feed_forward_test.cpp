// The feed-forward part in the calibrated pass: the fit expert by expert tends to the joint one, matrices that are not asked for
// stay out of it, it says which form it took, and what an accelerator is asked for is what the host does.
#include <slimtrim/backend/reference.hpp>
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

// Fits by the host's sweeps from what an accelerator is told.
class fitting_accelerator final : public accelerator {
 public:
  void layer(model_config const&, decoder_layer const&, matrix_view<float>, index_t, layer_hooks const&) override {}
  void attention(model_config const&, decoder_layer const&, matrix_view<float>, index_t, layer_hooks const&) override {}
  void feed_forward(model_config const&, decoder_layer const&, matrix_view<float>, layer_hooks const&) override {}
  void logits(model_config const&, model_ends const&, matrix_view<float const>, matrix_view<float>) override {}
  bool gemm(float, matrix_view<float const>, matrix_view<float const>, float, matrix_view<float>) override { return false; }
  bool gram_update(float, matrix_view<float const>, matrix_view<float>) override { return false; }

  bool fits_experts(decoder_layer const&) const override { return true; }
  std::vector<residual_fit_report> fit_experts(model_config const& config, decoder_layer const& layer, matrix_view<float const> X,
                                               std::span<fitted_writer const> writers, matrix_view<float> residual,
                                               std::span<char const> held_out, expert_fit_options const& options) override {
    reference_backend const backend;
    std::vector<matrix<float>> all;
    std::vector<expert_features> experts;
    double squares = 0;
    index_t width = 0;
    for (fitted_writer const& writer : writers) {
      swiglu_weights const& swiglu = writer.expert >= 0 ? layer.moe->experts[static_cast<std::size_t>(writer.expert)].swiglu
                                                        : (layer.dense ? *layer.dense : *layer.moe->shared);
      index_t const n = static_cast<index_t>(writer.tokens.size());
      matrix<float> N(n, config.hidden), Z(n, swiglu.width()), U(n, swiglu.width());
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < config.hidden; ++j) N(i, j) = X(writer.tokens[static_cast<std::size_t>(i)], j);
      rms_norm(backend, as_const(N.view()), layer.feed_forward_norm, config.rms_epsilon, N.view());
      product(backend, as_const(N.view()), swiglu.gate.view, Z.view());
      product(backend, as_const(N.view()), swiglu.up.view, U.view());
      silu_multiply(backend, Z.view(), as_const(U.view()));
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < Z.extent(1); ++j) {
          Z(i, j) *= writer.factors[static_cast<std::size_t>(i)];
          squares += static_cast<double>(Z(i, j)) * static_cast<double>(Z(i, j));
        }
      width += Z.extent(1);
      experts.push_back({{writer.tokens.begin(), writer.tokens.end()}, writer.weight, stored_features(as_const(Z.view()))});
      all.push_back(std::move(Z));
    }
    expert_fit_options chosen = options;
    if (chosen.fit.unit == 0) chosen.fit.unit = squares / static_cast<double>(width);
    return residual_fit_experts(backend, experts, residual, held_out, chosen);
  }
};

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

TEST_CASE("an accelerator is told what the host fits to") {
  for (std::string const family : {"mixtral", "deepseek"})
    for (index_t const windows : {index_t{3}, index_t{40}}) {  // 40: some tokens judge
      CAPTURE(family);
      CAPTURE(windows);
      synthetic const s(family);
      token_windows const data = train_windows(windows, 32);
      plan const p = fit_plan(s.model, 1);
      output_modules const modules = list_output_modules(*s.model.files, s.model.config, p, scale_type::bfloat16);
      reference_backend const backend;
      slimmed_sink const sink = [](slimmed_module const&, slim_result const&) {};
      folded_sink const folded;
      detail::calibrated_context<reference_backend> at(backend, s.model, p, modules, data, {.joint_bytes = 0}, sink, folded);
      // The original stream is one layer ahead; what is fitted stands in its place with other gates.
      decoder_layer const original = load_layer(s.model.config, *s.model.weights, 1);
      decoder_layer layer = original;
      auto const halve = [](swiglu_weights& swiglu) {
        tensor<float, 2> gate = expand(swiglu.gate.view);
        for (index_t k = 0; k < gate.view().size(); ++k) gate.view().data[k] *= 0.5F;
        swiglu.gate = own_weight(std::move(gate));
      };
      for (expert_weights& expert : layer.moe->experts) halve(expert.swiglu);
      if (layer.moe->shared) halve(*layer.moe->shared);
      forward_workspace work;
      forward_feed_forward(backend, s.model.config, original, 1, at.original->all(), work);
      detail::layer_writers on_host = detail::writers_of(at, 1, layer), on_device = detail::writers_of(at, 1, layer);
      REQUIRE(on_host.features > 0);
      fitting_accelerator device;
      detail::fit_by_experts(at, layer, on_host);
      detail::fit_by_experts(device, at, layer, on_device);
      index_t fits = 0;
      for (std::size_t k = 0; k < on_host.slots.size(); ++k) {
        if (on_host.slots[k].column < 0) continue;
        ++fits;
        ordered_json const &expected = on_host.slots[k].report, &found = on_device.slots[k].report;
        CHECK(found.at("form") == "expert by expert");
        CHECK(found.at("changed") == expected.at("changed"));
        CHECK(found.at("ridge") == expected.at("ridge"));
        for (char const* const figure : {"residual", "left", "held_out_residual", "held_out_left"})
          CHECK(found.at(figure).get<double>() == doctest::Approx(expected.at(figure).get<double>()).epsilon(1e-4));
        CHECK((expected.at("held_out_residual").get<double>() > 0) == (windows == 40));
        auto const a = expand(on_host.slots[k].now.view), b = expand(on_device.slots[k].now.view), before = expand(on_host.slots[k].slot->view);
        double apart = 0, moved = 0;
        for (index_t i = 0; i < a.view().size(); ++i) {
          apart += std::pow(static_cast<double>(a.view().data[i] - b.view().data[i]), 2);
          moved += std::pow(static_cast<double>(a.view().data[i] - before.view().data[i]), 2);
        }
        CHECK(moved > 0);
        CHECK(apart <= 1e-6 * moved);  // factors are multiplied in another order
      }
      CHECK(fits == (family == "mixtral" ? 4 : 5));
    }
}

}  // namespace pipeline_calibrated_feed_forward_test
