#include <slimtrim/importance/criterion.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_criterion_test {

using namespace slimtrim;

namespace {
struct counts {
  static constexpr need needs = need::statistics;
  std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(layer, [&](index_t j) { return layer.router.count(j); });
  }
};
struct wants_tokens : counts {
  static constexpr need needs = need::tokens;
};
}  // namespace

TEST_CASE("an own criterion is a struct with a need and a call") {
  static_assert(statistics_criterion<counts>);
  static_assert(!statistics_criterion<wants_tokens>);
  CHECK(hand::scores(counts{}(hand::layer()), 1, 2, 0));
  CHECK(name_of(need::weights) == "weights");
  CHECK(name_of(need::tokens) == "tokens");
}

}  // namespace importance_criterion_test
