#include <slimtrim/router/routing_view.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace router_routing_view_test {

using namespace slimtrim;

TEST_CASE("raw gates are the scores of the selected, unused slots count nothing") {
  std::vector<float> const probabilities{.5F, .25F, .25F}, weights{2, 0};
  std::vector<std::int32_t> const indices{2, -1};
  routing_view const r{matrix_view<float const>(probabilities.data(), 1, 3),
                       matrix_view<std::int32_t const>(indices.data(), 1, 2),
                       matrix_view<float const>(weights.data(), 1, 2)};
  CHECK(r.raw_gate(0, 0) == .25);
  CHECK(r.raw_gate(0, 1) == 0);
  CHECK(r.raw_gate_sum(0) == .25);
  CHECK_NOTHROW(check_routing_view(r, 3));
  CHECK_THROWS_AS(check_routing_view(r, 2), error);
}

}  // namespace router_routing_view_test
