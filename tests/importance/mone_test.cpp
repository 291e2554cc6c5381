#include <slimtrim/importance/mone.hpp>
#include <importance/hand_layer.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>

namespace importance_mone_test {

using namespace slimtrim;

TEST_CASE("mone by hand: sigma of expert 1 is (3, 3), its weights add up to 2.5") {
  CHECK(hand::scores(mone_importance{}(hand::layer()), 0, 2.5 * std::sqrt(18.), 0));
}

TEST_CASE("mone names the table that it lacks") {
  CHECK_THROWS_WITH_AS(mone_importance{}(hand::layer(false)),
                       "mone: outputs: the statistics were collected without expert outputs", error);
}

}  // namespace importance_mone_test
