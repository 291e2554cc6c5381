// Perplexity and distances: against golden numbers of independent code, against the model itself, for any threads.
#include <slimtrim/pipeline/evaluate.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/io/json_fields.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace pipeline_evaluate_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("golden perplexity, original and with 3-bit experts") {
  if (!has_shared_data()) {
    MESSAGE("no shared data: skipped");
    return;
  }
  ordered_json const golden = read_json_file(shared_file("tiny-mixtral-wikitext2/golden.json"))["valid_16x256"];
  token_windows const windows = valid_windows(16, 256);
  evaluation const full = evaluate_model(bundled(), nullptr, windows, 2);
  CHECK(full.tokens == 16 * 255);
  CHECK_FALSE(full.compared);
  // Both are float32 with sums in another order; a near-tie in the router may flip one token's experts.
  CHECK(full.perplexity() == doctest::Approx(golden["full"]["ppl_within_window"].get<double>()).epsilon(2e-4));

  // The golden round-to-nearest has its own scale, max|w| / (2^(b-1) - 1), in float: applied here to the weights.
  opened_model const rounded = changed_model(bundled(), [](module_id id, matrix_view<float> W) {
    if (!is_expert_role(id.role)) return false;
    for (index_t r = 0; r < W.extent(0); ++r)
      for (index_t first = 0; first < W.extent(1); first += 128) {
        float largest = 0;
        for (index_t c = first; c < first + 128; ++c) largest = std::max(largest, std::fabs(W(r, c)));
        float const scale = largest / 3.0F;
        for (index_t c = first; c < first + 128; ++c)
          W(r, c) = std::clamp(std::nearbyintf(W(r, c) / scale), -4.0F, 3.0F) * scale;
      }
    return true;
  });
  evaluation const three = evaluate_model(rounded, &bundled(), windows, 2);
  CHECK(three.perplexity() == doctest::Approx(golden["rtn"]["w3g128_experts"]["ppl_within_window"].get<double>()).epsilon(5e-4));
  CHECK(three.base_perplexity() == doctest::Approx(full.perplexity()).epsilon(1e-6));
  CHECK(three.kl_mean > 0.01);
  CHECK(three.kl_p99 > three.kl_mean);
  CHECK(three.top1_agreement < 1);
  CHECK(three.chosen_agreement < 1);
  CHECK(three.chosen_agreement > 0.5);
  CHECK(three.retention() == doctest::Approx(full.nll / three.nll).epsilon(1e-6));
}

TEST_CASE("a model against itself") {
  token_windows const windows = valid_windows(3, 40);
  evaluation const same = evaluate_model(bundled(), &bundled(), windows);
  CHECK(same.compared);
  CHECK(same.kl_mean == 0);
  CHECK(same.kl_p99 == 0);
  CHECK(same.top1_agreement == 1);
  CHECK(same.chosen_agreement == 1);
  CHECK(same.nll == same.base_nll);
  CHECK(same.retention() == 1);
}

TEST_CASE("the same bits for any number of threads") {
  token_windows const windows = valid_windows(5, 48);
  plan p = keep_everything(bundled().config);
  p.layer(3).feed_forward = false;
  opened_model const changed = planned_model(bundled(), p);
  evaluation const one = evaluate_model(changed, &bundled(), windows, 1), three = evaluate_model(changed, &bundled(), windows, 3);
  CHECK(one.nll == three.nll);
  CHECK(one.base_nll == three.base_nll);
  CHECK(one.kl_mean == three.kl_mean);
  CHECK(one.kl_p99 == three.kl_p99);
  CHECK(one.top1_agreement == three.top1_agreement);
  CHECK(one.chosen_agreement == three.chosen_agreement);
  // In chunks of one window products have other shapes, so sums may differ in the last bits.
  evaluate_options small;
  small.activation_bytes = 1;
  evaluation const chunks = evaluate_model(changed, &bundled(), windows, 1, small);
  CHECK(chunks.nll == doctest::Approx(one.nll).epsilon(1e-5));
  CHECK(chunks.kl_mean == doctest::Approx(one.kl_mean).epsilon(1e-3));
}

TEST_CASE("bases of another shape") {
  token_windows const windows = valid_windows(2, 32);
  plan p = keep_everything(bundled().config);
  p.layer(7).block = false;
  evaluation const shorter = evaluate_model(planned_model(bundled(), p), &bundled(), windows);
  CHECK(shorter.kl_mean > 0);
  CHECK(shorter.chosen_agreement == -1);  // layers do not correspond
  evaluation const longer = evaluate_model(bundled(), &bundled(), windows);
  // A base of other depth runs in batches of its own, and products of other shapes may differ in the last bits.
  CHECK(shorter.base_nll == doctest::Approx(longer.nll).epsilon(1e-6));
  opened_model odd = bundled();
  odd.config.vocabulary = 2000;
  CHECK(has(message_of<input_error>([&] { static_cast<void>(evaluate_model(bundled(), &odd, windows)); }), "field 'vocab_size': expected 2048, found 2000"));
}

TEST_CASE("overflow is an error, a thrown progress callback passes through") {
  token_windows const windows = valid_windows(1, 16);
  opened_model const wild = changed_model(bundled(), [](module_id id, matrix_view<float> W) {
    if (id.role != module_role::head) return false;
    W(5, 5) = std::numeric_limits<float>::infinity();
    return true;
  });
  CHECK_THROWS_AS(static_cast<void>(evaluate_model(wild, nullptr, windows)), numeric_error);
  evaluate_options options;
  options.progress = [](progress const&) { throw interrupted(); };
  CHECK_THROWS_AS(static_cast<void>(evaluate_model(bundled(), nullptr, windows, 1, options)), interrupted);
}

}  // namespace pipeline_evaluate_test
