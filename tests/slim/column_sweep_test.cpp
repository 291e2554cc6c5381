#include <slimtrim/slim/column_sweep.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/slim/hessian.hpp>

#include <slim/support.hpp>
#include <slim/textbook.hpp>

namespace slim_column_sweep_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

struct rounding {
  void begin_block(matrix_view<float const>, index_t, index_t) {}
  void choose(sweep_tile const& tile, index_t j, float* target) const {
    for (index_t l = 0; l < sweep_tile::lanes; ++l) target[l] = std::nearbyint(tile.column(j)[l] * 8.0F) / 8.0F;
  }
};

}  // namespace

TEST_CASE("blocks never cut a group after its start") {
  for (index_t columns : {1, 100, 128, 300, 1000})
    for (index_t group : {0, 1, 32, 48, 100, 128, 192, 1000}) {
      auto const cuts = sweep_blocks(columns, 128, group);
      CHECK(cuts.front() == 0);
      CHECK(cuts.back() == columns);
      for (std::size_t b = 0; b + 1 < cuts.size(); ++b) {
        CHECK(cuts[b] < cuts[b + 1]);
        CHECK(cuts[b + 1] - cuts[b] <= 128);
        if (group == 0) continue;
        for (index_t start = 0; start < columns; start += group)
          if (start > cuts[b] && start < cuts[b + 1]) CHECK(std::min(columns, start + group) <= cuts[b + 1]);
      }
    }
  CHECK(sweep_blocks(0, 128, 32) == std::vector<index_t>{0});
}

TEST_CASE("a sweep equals the textbook, column by column, for every block size") {
  index_t const n = 19, c = 45;
  auto const W = random_weight(n, c, 41);
  auto const H = gram_of(random_input(200, c, 42));
  auto const expected = textbook_sweep(W, natural_order(c), upper_factor_of_inverse(H, natural_order(c), 0.01),
                                       [](std::size_t, std::size_t j, std::vector<double> const& w) { return std::nearbyint(w[j] * 8) / 8; });
  auto const prepared = prepare_hessian(eigen_backend{}, as_const(H.view()), column_order::natural);
  for (index_t block : {1, 7, 45, 128}) {
    auto moved = W.clone();
    std::vector<double> losses(static_cast<std::size_t>(n));
    rounding chooser;
    column_sweep(eigen_backend{}, moved.view(), as_const(prepared.factor.view()), sweep_blocks(c, block, 0), chooser,
                 vector_view<double>(losses.data(), n));
    int different = 0;
    for (index_t i = 0; i < n; ++i) {
      double loss = 0;
      for (index_t j = 0; j < c; ++j)
        if (std::fabs(static_cast<double>(moved(i, j)) - expected[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)]) > 1e-5) ++different;
      for (index_t a = 0; a < c; ++a)
        for (index_t b = 0; b < c; ++b)
          loss += static_cast<double>(moved(i, a) - W(i, a)) * static_cast<double>(prepared.damped(a, b)) *
                  static_cast<double>(moved(i, b) - W(i, b));
      CHECK(losses[static_cast<std::size_t>(i)] == doctest::Approx(loss).epsilon(1e-4));
    }
    // float against double: a value on a rounding boundary may fall the other way, and then moves the rest of its row.
    CHECK(different <= n * c / 50);
  }
}

}  // namespace slim_column_sweep_test
