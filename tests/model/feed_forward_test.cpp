#include <slimtrim/model/feed_forward.hpp>

#include <slimtrim/backend/reference.hpp>

#include <doctest/doctest.h>

#include <cmath>

namespace model_feed_forward_test {

using namespace slimtrim;

TEST_CASE("a SwiGLU of one neuron in closed form, and what the hook sees") {
  tensor<float, 2> gate(1, 2), up(1, 2), down(2, 1), X(3, 2), Y(3, 2);
  gate(0, 0) = 1;
  gate(0, 1) = 0;
  up(0, 0) = 0;
  up(0, 1) = 2;
  down(0, 0) = 3;
  down(1, 0) = -1;
  swiglu_weights const weights{own_weight(std::move(gate)), own_weight(std::move(up)), own_weight(std::move(down))};
  CHECK(weights.width() == 1);
  for (index_t t = 0; t < 3; ++t) {
    X(t, 0) = static_cast<float>(t) - 1;
    X(t, 1) = 0.5F;
  }
  forward_workspace work;
  index_t calls = 0;
  swiglu(reference_backend(), X.view(), weights, Y.view(), work, [&](matrix_view<float const> H) {
    ++calls;
    CHECK(H.extent(0) == 3);
    CHECK(H.extent(1) == 1);
    for (index_t t = 0; t < 3; ++t) {
      double const x = static_cast<double>(t) - 1;
      CHECK(static_cast<double>(H(t, 0)) == doctest::Approx(x / (1 + std::exp(-x))));
    }
  });
  CHECK(calls == 1);
  for (index_t t = 0; t < 3; ++t) {
    double const x = static_cast<double>(t) - 1, hidden = x / (1 + std::exp(-x));
    CHECK(static_cast<double>(Y(t, 0)) == doctest::Approx(3 * hidden));
    CHECK(static_cast<double>(Y(t, 1)) == doctest::Approx(-hidden));
  }
}

}  // namespace model_feed_forward_test
