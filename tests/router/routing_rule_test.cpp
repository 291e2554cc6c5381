#include <slimtrim/router/routing_rule.hpp>

#include <doctest/doctest.h>

namespace router_routing_rule_test {

using namespace slimtrim;

TEST_CASE("a rule that cannot route is refused by the field that is wrong") {
  CHECK_NOTHROW(check_routing_rule({}, 8));
  CHECK_NOTHROW(check_routing_rule({.top_k = 9}, 8));  // more slots than experts: all are used
  CHECK_THROWS_WITH_AS(check_routing_rule({.top_k = 0}, 8), "routing_rule: top_k: expected at least 1", error);
  CHECK_THROWS_WITH_AS(check_routing_rule({}, 0), "routing_rule: experts: expected at least 1", error);
  CHECK_THROWS_WITH_AS(check_routing_rule({.groups = 3, .groups_kept = 1}, 8),
                       "routing_rule: groups: expected a divisor of the number of experts", error);
  CHECK_THROWS_WITH_AS(check_routing_rule({.groups = 4, .groups_kept = 5}, 8),
                       "routing_rule: groups_kept: expected 1 .. groups", error);
}

}  // namespace router_routing_rule_test
