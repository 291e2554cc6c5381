// Statistics of a model: against numbers of independent code, and the same bits for any threads, chunks and order of windows.
#include <slimtrim/pipeline/calibrate.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/core/random.hpp>
#include <slimtrim/importance/reap.hpp>
#include <slimtrim/io/json_fields.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace pipeline_calibrate_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("criteria of independent code") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  MESSAGE("32,768 tokens take too long with a sanitizer: skipped");
  return;
#endif
  if (!has_shared_data()) {
    MESSAGE("no shared data: skipped");
    return;
  }
  ordered_json const golden = read_json_file(shared_file("tiny-mixtral-wikitext2/criteria-golden.json"));
  calibrate_options options;
  options.tables.outputs = options.tables.neurons = false;
  model_statistics const found = calibrate_model(bundled(), train_windows(128, 256), 2, options);
  CHECK(found.tokens() == 32768);
  // Counts differ where a near-tie of the router flips, about one token in ten thousand; everything summed over the tokens of
  // one expert moves by as much. Means over all tokens agree to the rounding of float32.
  auto const near = [](double value, ordered_json const& expected, double relative) {
    return value == doctest::Approx(expected.get<double>()).epsilon(relative);
  };
  for (index_t i = 0; i < 8; ++i) {
    CAPTURE(i);
    auto const l = static_cast<std::size_t>(i);
    layer_statistics const& layer = found.layer(i);
    double const tokens = layer.router.tokens();
    CHECK(tokens == 32768);
    CHECK(near(layer.similarity.block(), golden["cos_block"][l], 1e-5));
    CHECK(near(layer.similarity.moe(), golden["cos_moe"][l], 1e-5));
    CHECK(near(layer.similarity.residual_norm(), golden["resid_norm"][l], 1e-5));
    for (index_t e = 0; e < 8; ++e) {
      CAPTURE(e);
      auto const j = static_cast<std::size_t>(e);
      CHECK(near(layer.router.count(e) / tokens, golden["freq"][l][j], 5e-4));
      CHECK(near(layer.router.probability(e) / tokens, golden["prob"][l][j], 1e-4));
      CHECK(near(layer.router.renormalised_weight(e) / tokens, golden["w2"][l][j], 5e-4));
      CHECK(near(layer.norms.norm(e) / tokens, golden["ean"][l][j], 5e-4));
      CHECK(near(layer.norms.weighted(e) / layer.router.count(e), golden["reap"][l][j], 1e-4));
    }
  }
}

TEST_CASE("the same bits for any threads, chunks and order of windows") {
  token_windows const windows = train_windows(6, 48);
  calibrate_options options;
  options.tables.blocks = true;
  std::string const whole = bytes_of(calibrate_model(bundled(), windows, 1, options));
  CHECK(bytes_of(calibrate_model(bundled(), windows, 3, options)) == whole);
  calibrate_options small = options;
  small.activation_bytes = 1;
  CHECK(bytes_of(calibrate_model(bundled(), windows, 2, small)) == whole);
  token_windows reversed = windows;
  reversed.tokens.clear();
  for (index_t w = windows.count(); w-- > 0;) reversed.tokens.insert(reversed.tokens.end(), windows[w].begin(), windows[w].end());
  CHECK(bytes_of(calibrate_model(bundled(), reversed, 1, options)) == whole);
}

TEST_CASE("sums that must agree with each other") {
  calibrate_options options;
  options.tables.blocks = true;
  model_statistics const found = calibrate_model(bundled(), train_windows(3, 32), 1, options);
  CHECK(found.windows.size() == 3);
  CHECK(std::is_sorted(found.windows.begin(), found.windows.end()));
  CHECK(found.model == fingerprint_of(*bundled().files));
  REQUIRE(found.blocks);
  for (index_t i = 0; i < 8; ++i) {
    layer_statistics const& layer = found.layer(i);
    double counts = 0, probabilities = 0, weights = 0;
    for (index_t e = 0; e < 8; ++e) {
      counts += layer.router.count(e);
      probabilities += layer.router.probability(e);
      weights += layer.router.weight(e);
    }
    CHECK(counts == 2 * 96);
    CHECK(probabilities == doctest::Approx(96).epsilon(1e-5));
    CHECK(weights == doctest::Approx(96).epsilon(1e-5));
  }
}

TEST_CASE("saliency uses the weights that the model multiplies with, whatever the router") {
  // With expert j's down projection at zero the layer gives every token g_j f_j less than with it: that is how much of the sum
  // in which saliency speaks of j the model really adds, without a word of the router about it.
  constexpr index_t tokens = 24, hidden = 8, width = 12, experts = 8;
  auto const random = [](index_t n, index_t m, std::uint64_t stream, double size) {
    tensor<float, 2> values(n, m);
    for (index_t i = 0; i < n * m; ++i) values.view().data[i] = static_cast<float>(size * normal_at(7, stream, static_cast<std::uint64_t>(i)));
    return values;
  };
  struct named_rule {
    char const* name;
    routing_rule rule;
  };
  for (named_rule const& each : std::vector<named_rule>{
           {"Mixtral", {}},
           {"top-k as it is, scaled", {.top_k = 3, .renormalise = false, .scale = 2.5F}},
           {"DeepSeek-V2: groups", {.top_k = 3, .renormalise = false, .scale = 16, .groups = 4, .groups_kept = 2}},
           {"DeepSeek-V3: sigmoid, bias, groups",
            {.score = score_function::sigmoid, .top_k = 3, .weight_sum_epsilon = 1e-20, .scale = 2.5F, .selection_bias = true, .groups = 4, .groups_kept = 2,
             .group_by = group_score::top_two_sum}},
           {"ERNIE: softmax with bias", {.top_k = 2, .weight_sum_floor = 1e-2, .selection_bias = true}},
           {"gpt-oss: top-k, then softmax", {.top_k = 2, .select_before_score = true, .renormalise = false}},
           {"Llama-4: on the input", {.score = score_function::sigmoid, .top_k = 1, .renormalise = false, .weight_scales_input = true}}}) {
    CAPTURE(each.name);
    model_config config;
    config.hidden = hidden;
    config.rms_epsilon = 1e-5;
    config.layers.resize(1);
    decoder_layer layer;
    for (index_t i = 0; i < hidden; ++i) layer.feed_forward_norm.push_back(1.0F + 0.1F * static_cast<float>(i));
    layer.moe.emplace();
    layer.moe->rule = each.rule;
    layer.moe->router = own_weight(random(experts, hidden, 1, 1.0));
    // Large enough to change choices, so that weights that took part of it would be seen.
    if (each.rule.selection_bias)
      for (index_t e = 0; e < experts; ++e) layer.moe->selection_bias.push_back(e % 3 == 0 ? 0.4F : -0.2F);
    for (std::uint64_t e = 0; e < static_cast<std::uint64_t>(experts); ++e)
      layer.moe->experts.push_back({{own_weight(random(width, hidden, 10 + e, 0.5)), own_weight(random(width, hidden, 30 + e, 0.5)),
                                     own_weight(random(hidden, width, 50 + e, 0.5))},
                                    {}});
    tensor<float, 2> const start = random(tokens, hidden, 99, 1.0);
    tensor<float, 2> X = start.clone();
    layer_statistics const found = observe_layer(config, layer, X.view());
    double all = 0;
    for (index_t e = 0; e < experts; ++e) {
      decoder_layer without = layer;
      without.moe->experts[static_cast<std::size_t>(e)].swiglu.down = own_weight(random(hidden, width, 1, 0.0));
      tensor<float, 2> Y = start.clone();
      static_cast<void>(observe_layer(config, without, Y.view()));
      double added = 0, change_weighted = 0, topk = 0;
      for (index_t t = 0; t < tokens; ++t) {
        double square = 0, dot = 0, before = 0, after = 0;
        for (index_t c = 0; c < hidden; ++c) {
          double const x = static_cast<double>(start(t, c)), y = static_cast<double>(X(t, c)), d = y - static_cast<double>(Y(t, c));
          square += d * d;
          dot += x * y;
          before += x * x;
          after += y * y;
        }
        added += std::sqrt(square);
        change_weighted += (1 - dot / std::sqrt(before * after)) * std::sqrt(square);
        topk += square > 0 ? 1 : 0;
      }
      // Differences of float sums of size 1 to 10, 24 of them: 1e-6 each.
      CHECK(found.norms.weighted(e) == doctest::Approx(added).epsilon(1e-5));
      CHECK(found.norms.change_weighted(e) == doctest::Approx(change_weighted).epsilon(1e-4));
      CHECK(found.router.count(e) == topk);
      double const reap = reap_importance{}(found)[static_cast<std::size_t>(e)];
      CHECK(reap == doctest::Approx(topk > 0 ? added / topk : 0.0).epsilon(1e-5));
      all += added;
    }
    CHECK(all > 0);
  }
}

TEST_CASE("a model without some parts") {
  plan p = keep_everything(bundled().config);
  p.layer(2).feed_forward = false;
  p.layer(3).attention = false;
  p.layer(4).experts = {0, 2, 5};
  model_statistics const found = calibrate_model(planned_model(bundled(), p), train_windows(2, 24));
  CHECK(found.layer(2).experts() == 0);
  CHECK(found.layer(2).similarity.moe() == doctest::Approx(1).epsilon(1e-6));
  CHECK(found.layer(3).similarity.attention() == doctest::Approx(1).epsilon(1e-6));
  CHECK(found.layer(4).experts() == 3);
  CHECK(found.layer(4).router.count(0) + found.layer(4).router.count(1) + found.layer(4).router.count(2) == 2 * 48);
}

TEST_CASE("progress") {
  calibrate_options options;
  index_t last = -1;
  options.progress = [&](progress const& p) {
    CHECK(p.done <= p.total);
    CHECK(p.done >= last);
    CHECK(p.total == 24);
    CHECK(p.unit == "tokens");
    if (last < 0) CHECK(p.done == 0);
    last = p.done;
  };
  static_cast<void>(calibrate_model(bundled(), train_windows(3, 8), 1, options));
  CHECK(last == 24);
  options.progress = [](progress const&) { throw interrupted(); };
  CHECK_THROWS_AS(static_cast<void>(calibrate_model(bundled(), train_windows(1, 8), 1, options)), interrupted);
}

}  // namespace pipeline_calibrate_test
