// What the hooks of one layer become in the accumulators, by hand: one token, two experts.
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/pipeline/statistics_observer.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

namespace pipeline_statistics_observer_test {

using namespace slimtrim;

namespace {

using observer = slimtrim::detail::statistics_observer<reference_backend>;

constexpr layer_statistics_options wanted{.experts = 2, .hidden = 2, .intermediate = 1, .outputs = true, .neurons = true};

matrix_view<float const> one_row(std::vector<float> const& values) {
  return matrix_view<float const>(values.data(), 1, static_cast<index_t>(values.size()));
}

// Expert 0 is chosen with weight 0.5, its hidden value is 2 and its output (0, 8), so the layer adds (0, 4) to (3, 4).
void show_window(observer& o) {
  std::vector<float> const x{3, 4}, normalised{1, 0}, scores{0.75F, 0.25F}, weight{0.5F}, hidden{2}, output{0, 8},
      added{0, 4}, out{3, 8};
  std::vector<std::int32_t> const chosen{0}, tokens{0};
  o.block_input(0, one_row(x));
  o.attention_residual(0, one_row(x));
  o.feed_forward_input(0, one_row(normalised));
  o.router_result(0, {one_row(scores), one_row(scores), matrix_view<std::int32_t const>(chosen.data(), 1, 1), one_row(weight)});
  expert_batch const batch{0, tokens, weight};
  o.expert_hidden(0, batch, one_row(hidden));
  o.expert_output(0, batch, one_row(output));
  o.feed_forward_output(0, one_row(added));
  o.block_output(0, one_row(out));
}

}  // namespace

TEST_CASE("statistics_observer: a window of routed experts") {
  reference_backend const backend;
  observer o(backend, wanted, false);
  show_window(o);
  layer_statistics const& s = o.statistics();
  CHECK(s.router.tokens() == 1);
  CHECK(s.router.count(0) == 1);
  CHECK(s.router.weight(0) == 0.5);
  CHECK(s.norms.norm(0) == 8);
  CHECK(s.norms.weighted(0) == 4);
  CHECK(s.outputs->mean(0)[1] == 8);
  CHECK(s.neurons->plain(0, 0) == 4);
  CHECK(s.neurons->weighted(0, 0) == 1);
  CHECK(s.similarity.attention() == doctest::Approx(1.0));
  CHECK(s.similarity.moe() == doctest::Approx((9.0 + 32.0) / (5.0 * 8.54400374531753)));  // cos((3, 4), (3, 8))
  CHECK(s.similarity.moe_output_norm() == 4);
  CHECK(s.norms.change_weighted(0) == doctest::Approx((1 - s.similarity.moe()) * 4).epsilon(1e-5));
}

TEST_CASE("statistics_observer: where weights multiply inputs, outputs carry them already") {
  reference_backend const backend;
  observer o(backend, wanted, true);
  show_window(o);
  CHECK(o.statistics().router.weight(0) == 1);
  CHECK(o.statistics().norms.weighted(0) == 8);
  CHECK(o.statistics().neurons->weighted(0, 0) == 4);
}

TEST_CASE("statistics_observer: a dropped second half adds nothing, also behind a layer that had one") {
  reference_backend const backend;
  observer o(backend, wanted, false);
  show_window(o);
  std::vector<float> const x{1, 0}, residual{0, 1};
  o.block_input(1, one_row(x));
  o.attention_residual(1, one_row(residual));
  o.block_output(1, one_row(residual));
  layer_statistics const& s = o.statistics();
  CHECK(s.similarity.tokens() == 2);
  CHECK(s.router.tokens() == 1);
  CHECK(s.similarity.moe_output_norm() == 2);  // (4 + 0) / 2
  CHECK(s.similarity.attention() == doctest::Approx(0.5));
}

TEST_CASE("statistics_observer: a window that was summed elsewhere stands beside those that were seen") {
  reference_backend const backend;
  observer o(backend, wanted, false);
  show_window(o);
  layer_sums sums;
  sums.similarity = {{1}, {1}, {0}, {1}, {25}, {0}};
  o.add(sums);
  CHECK(o.statistics().similarity.tokens() == 2);
  CHECK(o.statistics().similarity.residual_norm() == 5);
  CHECK(o.statistics().router.tokens() == 1);
}

}  // namespace pipeline_statistics_observer_test
