#include <slimtrim/slim/sparse/mask.hpp>

#include <doctest/doctest.h>

#include <slim/support.hpp>

#include <algorithm>
#include <vector>

namespace slim_sparse_mask_test {

using namespace slimtrim;
using namespace slimtrim_test;

TEST_CASE("bits, counts and views agree, also where a row does not fill its last word") {
  for (index_t columns : {0, 1, 63, 64, 65, 130}) {
    mask all(3, columns);
    CHECK(popcount(all.view()) == 3 * columns);
    mask none(3, columns, false);
    CHECK(popcount(none.view()) == 0);
    if (columns == 0) continue;
    all.set(1, columns - 1, false);
    CHECK_FALSE(all(1, columns - 1));
    CHECK_FALSE(all.view()(1, columns - 1));
    CHECK(all.view()(2, columns - 1));
    CHECK(popcount(all.view()) == 3 * columns - 1);
  }
}

TEST_CASE("apply zeroes exactly what is pruned, in strided views too") {
  auto W = random_weight(6, 70, 1);
  auto const before = W.clone();
  mask m(70, 6);
  for (index_t i = 0; i < 70; i += 3) m.set(i, i % 6, false);
  apply(m.view(), transposed(W.view()));
  for (index_t r = 0; r < 6; ++r)
    for (index_t c = 0; c < 70; ++c) CHECK(W(r, c) == (m(c, r) ? before(r, c) : 0.0F));
  CHECK_THROWS_AS(apply(m.view(), W.view()), error);
}

TEST_CASE("patterns are validated") {
  mask m(2, 10);
  CHECK_FALSE(follows(m.view(), {.keep = 2, .of = 4}));
  for (index_t r = 0; r < 2; ++r)
    for (index_t c = 0; c < 10; c += 2) m.set(r, c, false);
  CHECK(follows(m.view(), {.keep = 2, .of = 4}));
  CHECK(follows(m.view(), {.rate = 0.5}));
  CHECK_FALSE(follows(m.view(), {.rate = 0.6}));
  CHECK_THROWS_AS((sparsity{.keep = 5, .of = 4}.check()), error);
  CHECK_THROWS_AS((sparsity{.keep = 5, .of = 65}.check()), error);
  CHECK_THROWS_AS((sparsity{.rate = 1.5}.check()), error);
}

TEST_CASE("rows of scores: the fast selections equal a sort") {
  for (index_t n : {1, 4, 5, 63, 64, 128, 131, 700})
    for (bool ties : {false, true}) {
      auto const W = random_weight(1, n, static_cast<std::uint64_t>(n));
      std::vector<float> scores(static_cast<std::size_t>(n));
      for (index_t i = 0; i < n; ++i) scores[static_cast<std::size_t>(i)] = ties ? static_cast<float>(i * 7 % 3) : std::fabs(W(0, i));
      auto const rank = [&](index_t first, index_t last, index_t i) {
        index_t before = 0;
        for (index_t j = first; j < last; ++j) {
          float const a = scores[static_cast<std::size_t>(j)], b = scores[static_cast<std::size_t>(i)];
          before += a > b || (a == b && j < i) ? 1 : 0;
        }
        return before;
      };
      std::vector<std::uint64_t> keys;
      for (double rate : {0.0, 0.3, 0.5, 1.0}) {
        mask m(1, n);
        detail::mask_row(scores.data(), 0, {.rate = rate}, m, keys);
        index_t const kept = n - sparsity{.rate = rate}.pruned_of(n);
        for (index_t i = 0; i < n; ++i) REQUIRE(m(0, i) == (rank(0, n, i) < kept));
      }
      for (index_t of : {1, 4, 8, 64})
        for (index_t keep = 0; keep <= std::min<index_t>(of, 5); ++keep) {
          mask m(1, n);
          detail::mask_row(scores.data(), 0, {.keep = keep, .of = of}, m, keys);
          for (index_t i = 0; i < n; ++i) {
            index_t const first = i / of * of, last = std::min(n, first + of);
            REQUIRE(m(0, i) == (rank(first, last, i) < keep));
          }
          CHECK(follows(m.view(), {.keep = keep, .of = of}));
        }
    }
}

}  // namespace slim_sparse_mask_test
