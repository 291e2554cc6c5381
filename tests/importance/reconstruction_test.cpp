#include <slimtrim/importance/reconstruction.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace importance_reconstruction_test {

using namespace slimtrim;

namespace {

using list = std::vector<index_t>;

// The loss is the squared sum of what is missing: experts 0 and 1 cancel, so they are best removed together.
double cancelling(std::span<index_t const> kept) {
  std::vector<double> const value{3, -3, 2, 2.5};
  double missing = 0;
  for (index_t j = 0; j < 4; ++j)
    if (std::find(kept.begin(), kept.end(), j) == kept.end()) missing += value[static_cast<std::size_t>(j)];
  return missing * missing;
}

}  // namespace

TEST_CASE("exhaustive search sees that two errors cancel, greedy does not look ahead") {
  auto const all = reconstruct_exhaustively(4, 2, cancelling);
  CHECK(all.kept == list{2, 3});
  CHECK(all.loss == 0);
  CHECK(all.evaluations == 6);
  auto const greedy = reconstruct_greedily(4, 2, cancelling);
  CHECK(greedy.removal_order == list{2, 1});  // 4, then (2 - 3)^2 = 1
  CHECK(greedy.losses == std::vector<double>{4, 1});
  CHECK(greedy.kept == list{0, 3});
  CHECK(greedy.evaluations == 4 + 3);
}

TEST_CASE("the choice between them follows the number of subsets") {
  CHECK(subsets(8, 6) == 28);
  CHECK(subsets(128, 64) > 1e30);
  CHECK(reconstruct(4, 2, cancelling).loss == 0);
  CHECK(reconstruct(4, 2, cancelling, 5).loss == 1);
}

TEST_CASE("edges: all kept, ties, NaN, wrong counts") {
  CHECK(reconstruct_greedily(3, 3, [](auto) { return 0.0; }).kept == list{0, 1, 2});
  CHECK(reconstruct_exhaustively(3, 2, [](auto) { return 1.0; }).kept == list{0, 1});
  CHECK(reconstruct_greedily(3, 2, [](auto) { return 1.0; }).kept == list{1, 2});
  CHECK_THROWS_AS(reconstruct_exhaustively(3, 2, [](auto) { return std::nan(""); }), numeric_error);
  CHECK_THROWS_AS(reconstruct(3, 0, cancelling), error);
  CHECK_THROWS_AS(reconstruct(3, 4, cancelling), error);
}

TEST_CASE("scores for pooling never undo the greedy order") {
  reconstruction_result const r{{0}, 6, 0, {2, 1, 3}, {4, 3, 6}};
  auto const s = reconstruction_scores(r, 4, 2);
  CHECK(s[2] == 2);
  CHECK(s[1] == 2);  // the loss fell, the score does not
  CHECK(s[3] == 2);
  CHECK(s[0] > s[3]);
  CHECK_THROWS_AS(reconstruction_scores(r, 4, 0), error);
}

TEST_CASE("losses in nats: measured after 1, 2, 4 and all removals, in proportion between them") {
  reconstruction_result greedy;
  greedy.removal_order = {5, 1, 0, 3, 2, 4};
  greedy.losses = {1, 3, 4, 7, 9, 15};
  std::vector<std::size_t> asked;
  auto const found = losses_in_nats(greedy, [&](std::size_t gone) {
    asked.push_back(gone);
    return 0.1 * static_cast<double>(gone);
  });
  CHECK(asked == std::vector<std::size_t>{1, 2, 4, 6});
  // From 0.2 at a loss of 3 to 0.4 at 7: a loss of 4 is a quarter of the way; from there to 0.6 at 15: 9 is a quarter again.
  std::vector<double> const expected{0.1, 0.2, 0.25, 0.4, 0.45, 0.6};
  REQUIRE(found.losses.size() == 6);
  for (std::size_t k = 0; k < 6; ++k) CHECK(found.losses[k] == doctest::Approx(expected[k]));
  CHECK(found.removal_order == greedy.removal_order);
  // A measurement below the one before costs nothing; losses that stand still are as dear as the whole step; no removal, no question.
  greedy.losses = {1, 1, 1, 1};
  greedy.removal_order = {0, 1, 2, 3};
  auto const flat = losses_in_nats(greedy, [](std::size_t gone) { return gone == 2 ? 0.5 : 0.25; });
  CHECK(flat.losses == std::vector<double>{0.25, 0.5, 0.5, 0.5});
  CHECK(losses_in_nats({}, [](std::size_t) { return 1.0; }).losses.empty());
  CHECK_THROWS_AS(static_cast<void>(losses_in_nats(greedy, [](std::size_t) { return std::nan(""); })), numeric_error);
}

}  // namespace importance_reconstruction_test
