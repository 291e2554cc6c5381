// AWQ's scales through whole compressions: routing is what it was in every layer, exactly with powers of two; what reads a folded
// norm and stays dense is written anew; trimmed models, grouped heads and shared experts included.
#include <slimtrim/pipeline/calibrated_fold.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace pipeline_calibrated_fold_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

plan awq_plan(model_config const& config, std::string const& text, channel_scales scales) {
  plan p = slim_plan(config, text);
  for (step& s : p.slimming) s.quantization.scales = scales;
  return p;
}

opened_model compressed(opened_model const& model, plan const& p, temporary_folder const& folder, std::string const& name,
                        token_windows const& data, index_t threads = 1, calibrated_options const& options = {}) {
  compress_options given;
  given.data = &data;
  given.calibrated = options;
  compress_model(model, p, folder.path() / name, given, threads);
  return open_model(folder.path() / name);
}

struct routing_change {
  double worst = 0;     // largest change of norm_j * router_ij, relative
  double defect = 0;    // the same if the router had been left as it was
  bool changed = false; // whether the norm differs at all
};

// What the router makes of a normalised token is a sum of norm_j router_ij x_j: those products must stay.
routing_change compare_routing(opened_model const& before, opened_model const& after, index_t i, index_t j) {
  routing_change result;
  auto const norm = before.weights->vector({module_role::feed_forward_norm, i, 0});
  auto const folded = after.weights->vector({module_role::feed_forward_norm, j, 0});
  tensor<float, 2> const R = expand(before.weights->matrix({module_role::router, i, 0}).view);
  tensor<float, 2> const S = expand(after.weights->matrix({module_role::router, j, 0}).view);
  result.changed = norm != folded;
  for (index_t e = 0; e < S.extent(0); ++e)
    for (index_t c = 0; c < S.extent(1); ++c) {
      auto const at = static_cast<std::size_t>(c);
      double const old = static_cast<double>(norm[at]) * static_cast<double>(R(e, c));
      double const now = static_cast<double>(folded[at]) * static_cast<double>(S(e, c));
      double const left = static_cast<double>(folded[at]) * static_cast<double>(R(e, c));
      if (old == 0) continue;
      result.worst = std::max(result.worst, std::fabs(now / old - 1));
      result.defect = std::max(result.defect, std::fabs(left / old - 1));
    }
  return result;
}

// A small model with a few loud channels behind each norm, which is what makes scales worth while.
struct synthetic {
  explicit synthetic(std::string const& family) {
    write_synthetic(folder.path() / "m", {.family = family, .layers = 3, .hidden = 32, .intermediate = 48, .experts = 4, .heads = 4,
                                          .key_value_heads = 2, .vocabulary = 2048, .shared_experts = 1});
    for (index_t layer = 0; layer < 3; ++layer)
      for (std::string const norm : {"input_layernorm", "post_attention_layernorm"})
        for (index_t j = 3; j < 32; j += 9)
          poke(folder.path() / "m", "model.layers." + std::to_string(layer) + "." + norm + ".weight", j, 0x41c0);  // 24
    model = open_model(folder.path() / "m");
  }
  temporary_folder folder;
  opened_model model;
};

}  // namespace

TEST_CASE("routing is what it was in every layer, and the defect of leaving the router out would show") {
  synthetic const s("mixtral");
  temporary_folder const folder;
  token_windows const data = train_windows(4, 32);
  for (channel_scales const scales : {channel_scales::folded, channel_scales::power_of_two}) {
    CAPTURE(to_string(scales));
    opened_model const out = compressed(s.model, awq_plan(s.model.config, "awq:3g16", scales), folder, std::string(to_string(scales)), data);
    for (index_t i = 0; i < 3; ++i) {
      routing_change const r = compare_routing(s.model, out, i, i);
      CHECK(r.changed);
      // One rounding of the router to bfloat16; none with powers of two.
      CHECK(r.worst <= (scales == channel_scales::power_of_two ? 0.0 : 1.0 / 256));
      CHECK(r.defect > 0.25);
    }
  }
  opened_model const plain = compressed(s.model, awq_plan(s.model.config, "awq:3g16", channel_scales::none), folder, "plain", data);
  CHECK_FALSE(compare_routing(s.model, plain, 0, 0).changed);
}

TEST_CASE("a folded model is the same function: at eight bits little is lost, whatever was scaled") {
  for (std::string const family : {"mixtral", "deepseek"}) {
    synthetic const s(family);
    temporary_folder const folder;
    token_windows const data = train_windows(4, 32), held = valid_windows(4, 32);
    auto const kl = [&](std::string const& recipe, channel_scales scales) {
      return evaluate_model(compressed(s.model, awq_plan(s.model.config, recipe, scales), folder, recipe.substr(4, 1) + std::string(to_string(scales)), data), &s.model, held).kl_mean;
    };
    double const folded = kl("awq:8g16", channel_scales::folded), powers = kl("awq:8g16", channel_scales::power_of_two);
    double const none = kl("awq:8g16", channel_scales::none), coarse = kl("awq:2g16", channel_scales::none);
    MESSAGE(family, ": KL at 8 bit: folded ", folded, ", powers of two ", powers, ", none ", none, "; 2 bit without scales ", coarse);
    // Near-ties of the router set the floor; a wrong factor anywhere would cost more than two bits do.
    CHECK(folded < 0.05 * coarse);
    CHECK(powers < 0.05 * coarse);
  }
}

TEST_CASE("shared experts that stay dense take the scales, any threads and budgets, trimmed experts") {
  synthetic const s("deepseek");
  temporary_folder const folder;
  token_windows const data = train_windows(8, 16);
  plan p = awq_plan(s.model.config, "awq:3g16", channel_scales::power_of_two);
  p.slimming[0].targets = {"experts"};
  index_t moe = 0;
  while (s.model.config.layer(moe).feed_forward != feed_forward_kind::moe) ++moe;
  p.layer(moe).experts = {0, 2, 3};
  opened_model const out = compressed(s.model, p, folder, "one", data);
  auto const norm = s.model.weights->vector({module_role::feed_forward_norm, moe, 0});
  auto const folded = out.weights->vector({module_role::feed_forward_norm, moe, 0});
  CHECK(norm != folded);
  CHECK(out.weights->matrix({module_role::router, moe, 0}).rows() == 3);
  for (module_role const role : {module_role::shared_gate, module_role::shared_up, module_role::router}) {
    tensor<float, 2> const before = expand(s.model.weights->matrix({role, moe, 0}).view);
    tensor<float, 2> const after = expand(out.weights->matrix({role, moe, 0}).view);
    for (index_t i = 0; i < after.extent(0); ++i)
      for (index_t j = 0; j < after.extent(1); ++j) {
        index_t const row = role == module_role::router ? p.layer(moe).experts[static_cast<std::size_t>(i)] : i;
        CHECK(after(i, j) * folded[static_cast<std::size_t>(j)] == before(row, j) * norm[static_cast<std::size_t>(j)]);
      }
  }
  // Attention was not asked for: its norm and matrices are what they were.
  CHECK(out.weights->vector({module_role::attention_norm, moe, 0}) == s.model.weights->vector({module_role::attention_norm, moe, 0}));
  static_cast<void>(compressed(s.model, p, folder, "two", data, 2));
  CHECK(files_of(folder.path() / "one") == files_of(folder.path() / "two"));
  opened_model const tight = compressed(s.model, p, folder, "tight", data, 1, {.hessian_bytes = 1});
  CHECK(tight.weights->vector({module_role::feed_forward_norm, moe, 0}) != norm);
}

TEST_CASE("scales before GPTQ, a router that is slimmed itself, nobody to tell") {
  synthetic const s("mixtral");
  temporary_folder const folder;
  token_windows const data = train_windows(8, 16);
  // awq before gptq brings its scales only.
  opened_model const both = compressed(s.model, slim_plan(s.model.config, "awq:4g16+gptq:3g16"), folder, "both", data);
  CHECK(compare_routing(s.model, both, 0, 0).changed);
  CHECK(compare_routing(s.model, both, 0, 0).worst <= 1.0 / 256);
  plan key = slim_plan(s.model.config, "gptq:3g16");
  key.slimming[0].quantization.scales = channel_scales::folded;
  opened_model const same = compressed(s.model, key, folder, "key", data);
  CHECK(compare_routing(both, same, 0, 0).worst == 0);
  // Where the router is to be quantised too, the norm in front of it keeps its values.
  plan routers = slim_plan(s.model.config, "awq:8g16+rtn:8");
  routers.slimming[0].targets = {"experts"};
  routers.slimming[1].targets = {"router"};
  opened_model const quantised = compressed(s.model, routers, folder, "router", data);
  CHECK(quantised.weights->vector({module_role::feed_forward_norm, 0, 0}) == s.model.weights->vector({module_role::feed_forward_norm, 0, 0}));
  // Nobody to tell of changed norms: clip search alone.
  index_t scaled = 0, modules = 0;
  auto const count = [&](slimmed_module const&, slim_result const& r) {
    ++modules;
    scaled += r.report.contains("scales") ? 1 : 0;
  };
  slim_on_windows(s.model, slim_plan(s.model.config, "awq:4g16"), data, count, {}, 1, {});
  CHECK(modules > 0);
  CHECK(scaled == 0);
  slim_on_windows(s.model, slim_plan(s.model.config, "awq:4g16"), data, count);
  CHECK(scaled > 0);
}

}  // namespace pipeline_calibrated_fold_test
