#include <slimtrim/backend/reference.hpp>
#include <slimtrim/trim/neuron_drop.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace trim_neuron_drop_test {

using namespace slimtrim;

TEST_CASE("scores by hand: energy times the squared column norm") {
  std::vector<float> const h{1, -2, 3, 0}, g{.5F, 2};
  neuron_energies energies(1, 2);
  energies.add(reference_backend{}, 0, matrix_view<float const>(h.data(), 2, 2), g);
  energies.commit_window();
  std::vector<double> const down{.1, 100};
  auto const s = neuron_scores(energies, 0, down);
  CHECK(s[0] == doctest::Approx(3.625));
  CHECK(s[1] == doctest::Approx(100));
  CHECK(neuron_drop(s, 1) == std::vector<index_t>{1});
  CHECK_THROWS_AS(neuron_scores(energies, 1, down), error);
}

TEST_CASE("kept neurons ascend, ties keep the lower, impossible widths are refused") {
  std::vector<double> const s{5, 1, 5, 7, 5}, bad{1, std::nan("")};
  CHECK(neuron_drop(s, 3) == std::vector<index_t>{0, 2, 3});
  CHECK(neuron_drop(s, 5) == std::vector<index_t>{0, 1, 2, 3, 4});
  CHECK_THROWS_WITH_AS(neuron_drop(s, 0), "neuron_drop: width: expected 1 .. 5, found 0", error);
  CHECK_THROWS_WITH_AS(neuron_drop(s, 6), "neuron_drop: width: expected 1 .. 5, found 6", error);
  CHECK_THROWS_AS(neuron_drop(bad, 1), error);
}

}  // namespace trim_neuron_drop_test
