#include <slimtrim/statistics/exact_array.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <limits>
#include <vector>

namespace statistics_exact_array_test {

using namespace slimtrim;

namespace {

class toy : public accumulator<toy> {
 public:
  explicit toy(index_t n)
      : sum("toy.sum", {n}, fixed_point_scale::magnitudes),
        largest("toy.largest", {n}, fixed_point_scale::magnitudes, combine_by::maximum) {}
  exact_array sum, largest;
  template <class Self, class F>
  static void each(Self& self, F&& f) {
    f(self.sum);
    f(self.largest);
  }
};

}  // namespace

TEST_CASE("a window counts when it is committed, and not when it is discarded") {
  toy a(2);
  a.sum.add(0, 1.5);
  a.sum.add(0, 1);
  a.largest.raise_to(1, 7);
  CHECK(a.sum.value(0) == 0);
  a.commit_window();
  CHECK(a.sum.value(0) == 2.5);
  CHECK(a.largest.value(1) == 7);
  a.sum.add(0, 100);
  a.discard_window();
  a.commit_window();
  CHECK(a.sum.values() == std::vector<double>{2.5, 0});
}

TEST_CASE("merge adds sums and takes maxima; another shape is refused and changes nothing") {
  toy a(2), b(2), c(3);
  a.sum.add(0, 1);
  a.largest.raise_to(0, 4);
  b.sum.add(0, 2);
  b.largest.raise_to(0, 3);
  a.commit_window();
  b.commit_window();
  a.merge(b);
  CHECK(a.sum.value(0) == 3);
  CHECK(a.largest.value(0) == 4);
  CHECK_THROWS_WITH_AS(a.merge(c), "toy.sum: the statistics to merge have another shape or scale", error);
  CHECK(a.sum.value(0) == 3);
}

TEST_CASE("arrays can be written out and filled again") {
  toy a(2), copy(2);
  a.sum.add(1, 0.1);
  a.commit_window();
  std::vector<std::vector<int128_t>> file;
  a.visit([&](exact_array const& array) { file.emplace_back(array.totals().begin(), array.totals().end()); });
  std::size_t next = 0;
  copy.visit([&](exact_array& array) {
    for (std::size_t i = 0; i < array.size(); ++i) array.totals()[i] = file[next][i];
    ++next;
  });
  CHECK(next == 2);
  CHECK(copy.sum.value(1) == a.sum.value(1));
  CHECK(std::vector<index_t>(a.sum.extents().begin(), a.sum.extents().end()) == std::vector<index_t>{2});
  CHECK(a.sum.fraction_bits() == 64);
}

TEST_CASE("a NaN is reported with the name of the quantity") {
  toy a(1);
  a.largest.raise_to(0, std::numeric_limits<double>::quiet_NaN());
  CHECK_THROWS_WITH_AS(a.commit_window(), "toy.largest: expected a finite contribution", numeric_error);
}

}  // namespace statistics_exact_array_test
