// Slimming on calibration tokens: better than without them on other text, each module once, the same bits for any threads, and
// nothing strange where an expert saw no token.
#include <slimtrim/pipeline/calibrated_pass.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace pipeline_calibrated_pass_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

// Everything that a pass handed out, as bytes by module; and the order.
struct collected {
  std::map<std::string, std::string> bytes;
  std::vector<std::string> order;
  std::vector<index_t> layers;
  bool finite = true;
};

collected collect(opened_model const& model, plan const& p, token_windows const& windows, calibrated_options const& options = {},
                  index_t threads = 1) {
  collected result;
  slim_on_windows(
      model, p, windows,
      [&](slimmed_module const& m, slim_result const& r) {
        CHECK(result.bytes.count(m.stem) == 0);
        tensor<float, 2> const values = expand(slimmed_weight(r).view);
        CHECK(values.extent(0) == m.rows);
        CHECK(values.extent(1) == m.columns);
        for (index_t i = 0; i < m.rows; ++i)
          for (index_t j = 0; j < m.columns; ++j) result.finite = result.finite && std::isfinite(values(i, j));
        result.bytes[m.stem].assign(reinterpret_cast<char const*>(values.view().data), static_cast<std::size_t>(4 * m.rows * m.columns));
        result.order.push_back(m.stem);
        result.layers.push_back(m.to.layer);
      },
      options, threads);
  return result;
}

struct synthetic {
  explicit synthetic(std::string const& family = "mixtral") {
    write_synthetic(folder.path() / "m", {.family = family, .layers = 2, .hidden = 32, .intermediate = 48, .experts = 8, .heads = 2,
                                          .vocabulary = 2048, .shared_experts = 1});
    model = open_model(folder.path() / "m");
  }
  temporary_folder folder;
  opened_model model;
};

double divergence(plan const& p, compress_options const& options, token_windows const& held) {
  temporary_folder const folder;
  compress_model(bundled(), p, folder.path() / "out", options, 2);
  return evaluate_model(open_model(folder.path() / "out"), &bundled(), held, 2).kl_mean;
}

}  // namespace

TEST_CASE("gptq beats rtn, recover mends layer drop: on windows that were not calibrated on") {
  if (!has_shared_data()) {
    MESSAGE("no shared data: skipped");
    return;
  }
  token_windows const data = train_windows(12, 128), held = valid_windows(8, 128);
  compress_options options;
  options.data = &data;
  options.calibrated.fit.ridges = {0.1};
  plan gptq = slim_plan(bundled().config, "gptq:3g128");
  gptq.slimming[0].fit = fit_rule::none;
  double const rounded = divergence(slim_plan(bundled().config, "rtn:3g128"), options, held);
  double const second_order = divergence(gptq, options, held);
  MESSAGE("KL rtn ", rounded, ", gptq ", second_order);
  CHECK(second_order < rounded);

  plan dropped = keep_everything(bundled().config);
  dropped.layer(2).feed_forward = dropped.layer(4).feed_forward = false;
  plan mended = dropped;
  mended.slimming = slim_plan(bundled().config, "recover").slimming;
  double const before = divergence(dropped, options, held), after = divergence(mended, options, held);
  MESSAGE("KL layer drop ", before, ", recovered ", after);
  CHECK(after < before);
}

TEST_CASE("each module once, layers in order, the same bits for any threads") {
  for (std::string const family : {"mixtral", "deepseek"}) {
    CAPTURE(family);
    synthetic const s(family);
    token_windows const data = train_windows(8, 16);
    for (std::string const recipe : {"recover+gptq:3g16", "wanda:50%", "sparsegpt:2:4+rtn:4g16"}) {
      CAPTURE(recipe);
      plan const p = slim_plan(s.model.config, recipe);
      collected const one = collect(s.model, p, data), two = collect(s.model, p, data, {}, 2);
      CHECK(one.finite);
      CHECK(one.order == two.order);
      CHECK(one.bytes == two.bytes);
      CHECK(std::is_sorted(one.layers.begin(), one.layers.end()));
      output_modules const modules = list_output_modules(*s.model.files, s.model.config, p, scale_type::bfloat16);
      CHECK(one.order.size() == modules.slimmed.size());
      CHECK(needs_calibrated_pass(modules));
      // Hessians of one expert at a time are the same Hessians.
      CHECK(collect(s.model, p, data, {.hessian_bytes = 1}).bytes == one.bytes);
    }
    plan const rtn = slim_plan(s.model.config, "rtn:4g16");
    CHECK_FALSE(needs_calibrated_pass(list_output_modules(*s.model.files, s.model.config, rtn, scale_type::bfloat16)));
  }
}

TEST_CASE("options change what they are about") {
  synthetic const s;
  token_windows const data = train_windows(8, 16);
  plan const p = slim_plan(s.model.config, "gptq:3g16");
  collected const usual = collect(s.model, p, data);
  collected const plain = collect(s.model, p, data, {.affinity = false});
  collected const apart = collect(s.model, p, data, {.sequential = false});
  collected const unfitted = collect(s.model, p, data, {.joint_bytes = 1});
  CHECK(plain.finite);
  CHECK(apart.finite);
  CHECK(unfitted.finite);
  CHECK(plain.bytes != usual.bytes);
  // The first layer's queries see the original stream in any case.
  std::string const first = "model.layers.0.self_attn.q_proj";
  CHECK(apart.bytes.at(first) == usual.bytes.at(first));
  CHECK(unfitted.bytes.at(first) == usual.bytes.at(first));
  calibrated_options stop;
  stop.progress = [](progress const&) { throw interrupted(); };
  CHECK_THROWS_AS(static_cast<void>(collect(s.model, p, data, stop)), interrupted);
}

TEST_CASE("experts without tokens, trimmed layers, one short window") {
  synthetic const s;
  token_windows const two_tokens = train_windows(1, 2);  // at most four of eight experts see one
  for (std::string const recipe : {"gptq:3g16", "awq:4g16", "wanda:50%", "sparsegpt:50%", "recover"}) {
    CAPTURE(recipe);
    CHECK(collect(s.model, slim_plan(s.model.config, recipe), two_tokens).finite);
  }
  plan p = slim_plan(s.model.config, "recover+gptq:4g16");
  p.layer(0).feed_forward = false;
  p.layer(1).attention = false;
  p.layer(1).experts = {1, 4, 7};
  collected const trimmed = collect(s.model, p, train_windows(8, 16));
  CHECK(trimmed.finite);
  CHECK(trimmed.order.size() == 4 + 9);
  p = slim_plan(s.model.config, "gptq:4g16");
  p.layer(0).block = false;
  collected const shorter = collect(s.model, p, train_windows(4, 16));
  CHECK(shorter.order.size() == 4 + 24);
  CHECK(shorter.bytes.count("model.layers.0.self_attn.q_proj") == 1);
  CHECK(shorter.bytes.count("model.layers.1.self_attn.q_proj") == 0);
}

TEST_CASE("a weight that is not a number is named") {
  synthetic const s;
  std::string const name = "model.layers.1.block_sparse_moe.experts.2.w1.weight";
  temporary_folder const folder;
  std::filesystem::copy(s.folder.path() / "m", folder.path() / "bad");
  poke(folder.path() / "bad", name, 7, 0x7fc0);
  opened_model const bad = open_model(folder.path() / "bad");
  CHECK(has(message_of<input_error>([&] { static_cast<void>(collect(bad, slim_plan(bad.config, "gptq:4g16"), train_windows(2, 8))); }), "tensor '" + name + "'"));
}

}  // namespace pipeline_calibrated_pass_test
