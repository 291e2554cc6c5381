// A model seen through a plan: golden perplexities of dropped parts, and the modules behind their new numbers.
#include <slimtrim/pipeline/planned_model.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/io/json_fields.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

namespace pipeline_planned_model_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("golden perplexities of models without some parts") {
  if (!has_shared_data()) {
    MESSAGE("no shared data: skipped");
    return;
  }
  ordered_json const golden = read_json_file(shared_file("tiny-mixtral-wikitext2/golden.json"))["valid_16x256"];
  token_windows const windows = valid_windows(16, 256);
  auto const perplexity = [&](plan const& p) { return evaluate_model(planned_model(bundled(), p), nullptr, windows, 2).perplexity(); };
  auto const near = [](ordered_json const& numbers) { return doctest::Approx(numbers["ppl_within_window"].get<double>()).epsilon(5e-4); };
  plan const all = keep_everything(bundled().config);
  plan p = all;
  p.layer(3).feed_forward = false;
  CHECK(perplexity(p) == near(golden["drop_moe"][3]));
  p = all;
  p.layer(2).attention = false;
  CHECK(perplexity(p) == near(golden["drop_attn"][2]));
  p = all;
  p.layer(4).block = false;
  CHECK(perplexity(p) == near(golden["drop_block"][4]));
  p = all;
  ordered_json const& gone = golden["drop_least_loaded"]["2"]["experts"];
  for (index_t i = 0; i < 8; ++i) {
    auto& kept = p.layer(i).experts;
    for (ordered_json const& e : gone[static_cast<std::size_t>(i)]) kept.erase(std::find(kept.begin(), kept.end(), e.get<index_t>()));
    CHECK(kept.size() == 6);
  }
  CHECK(perplexity(p) == near(golden["drop_least_loaded"]["2"]));
}

TEST_CASE("one expert less: divergences of independent code") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  MESSAGE("65,536 tokens take too long with a sanitizer: skipped");
  return;
#endif
  if (!has_shared_data()) {
    MESSAGE("no shared data: skipped");
    return;
  }
  ordered_json const golden = read_json_file(shared_file("tiny-mixtral-wikitext2/criteria-golden.json"))["kl_leave_one_out_4096"];
  token_windows const windows = train_windows(16, 256);
  for (index_t const i : {0, 3, 5, 7})
    for (index_t const e : {0, 2, 5, 7}) {
      CAPTURE(i);
      CAPTURE(e);
      plan p = keep_everything(bundled().config);
      auto& kept = p.layer(i).experts;
      kept.erase(kept.begin() + e);
      double const kl = metered_kl(bundled(), planned_model(bundled(), p), windows, i);
      // Float sums in another order; near-ties of the router flip for a token or two of 4096.
      CHECK(kl == doctest::Approx(golden[static_cast<std::size_t>(i)][static_cast<std::size_t>(e)].get<double>()).epsilon(5e-3));
    }
}

TEST_CASE("modules by their new numbers") {
  plan p = keep_everything(bundled().config);
  p.layer(0).block = false;
  p.layer(2).experts = {1, 6};
  opened_model const seen = planned_model(bundled(), p);
  weight_source const& weights = *seen.weights;
  weight_source const& original = *bundled().weights;
  auto const same = [](weight const& a, weight const& b) {
    tensor<float, 2> const x = expand(a.view), y = expand(b.view);
    if (x.extent(0) != y.extent(0) || x.extent(1) != y.extent(1)) return false;
    for (index_t i = 0; i < x.extent(0); ++i)
      for (index_t j = 0; j < x.extent(1); ++j)
        if (x(i, j) != y(i, j)) return false;
    return true;
  };
  CHECK(same(weights.matrix({module_role::query, 0}), original.matrix({module_role::query, 1})));
  CHECK(same(weights.matrix({module_role::down, 1, 1}), original.matrix({module_role::down, 2, 6})));
  CHECK(same(weights.matrix({module_role::router, 0}), original.matrix({module_role::router, 1})));
  CHECK(weights.vector({module_role::attention_norm, 3}) == original.vector({module_role::attention_norm, 4}));
  CHECK(weights.has({module_role::down, 1, 1}));
  tensor<float, 2> const router = expand(weights.matrix({module_role::router, 1}).view), whole = expand(original.matrix({module_role::router, 2}).view);
  REQUIRE(router.extent(0) == 2);
  for (index_t j = 0; j < 128; ++j) {
    CHECK_UNARY(router(0, j) == whole(1, j));
    CHECK_UNARY(router(1, j) == whole(6, j));
  }
  CHECK_NOTHROW(weights.release(6));
  CHECK(seen.config.layer_count() == 7);
  CHECK(bundled().config.layer_count() == 8);
}

}  // namespace pipeline_planned_model_test
