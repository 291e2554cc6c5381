#include <slimtrim/backend/reference.hpp>
#include <slimtrim/statistics/neuron_energies.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace statistics_neuron_energies_test {

using namespace slimtrim;

TEST_CASE("energies by hand") {
  std::vector<float> const h{1, -2, 3, 0}, g{.5F, 2};
  neuron_energies s(2, 2);
  s.add(reference_backend{}, 0, matrix_view<float const>(h.data(), 2, 2), g);
  s.commit_window();
  CHECK(s.plain(0, 0) == 10);
  CHECK(s.plain(0, 1) == 4);
  CHECK(s.weighted(0, 0) == .25 + 36);
  CHECK(s.weighted(0, 1) == 1);
  CHECK(s.weighted(1, 0) == 0);
  CHECK_THROWS_AS(s.add(reference_backend{}, 0, matrix_view<float const>(h.data(), 2, 2), {}), error);
}

}  // namespace statistics_neuron_energies_test
