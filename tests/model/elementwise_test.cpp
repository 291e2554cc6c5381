#include <slimtrim/model/elementwise.hpp>

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace model_elementwise_test {

using namespace slimtrim;

TEST_CASE("exp_float is within 3e-7 of exp, never zero or infinite, and keeps NaN") {
  double worst = 0;
  for (float x = -87; x <= 88; x += 0.00437F) {
    double const exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(exp_float(x)) - exact) / exact);
  }
  CHECK(worst < 3e-7);
  CHECK(exp_float(0) == 1);
  CHECK(exp_float(-1000) > 0);
  CHECK(exp_float(-std::numeric_limits<float>::infinity()) > 0);
  CHECK(std::isfinite(exp_float(1000)));
  CHECK(std::isnan(exp_float(std::nanf(""))));
}

TEST_CASE("silu at special points") {
  CHECK(silu(0) == 0);
  CHECK(silu(1) == doctest::Approx(1 / (1 + std::exp(-1.0))));
  CHECK(silu(50) == 50);
  CHECK(silu(-300) <= 0);
  CHECK(silu(-300) > -1e-30F);
  CHECK(std::isfinite(silu(std::numeric_limits<float>::lowest())));
}

TEST_CASE("silu_multiply over odd shapes and padded rows") {
  reference_backend const backend;
  tensor<float, 2> g(17, 13), u(17, 13);
  for (index_t i = 0; i < 17; ++i)
    for (index_t j = 0; j < 13; ++j) {
      g(i, j) = static_cast<float>(i - j) / 4;
      u(i, j) = static_cast<float>(j) - 3;
    }
  tensor<float, 2> const before = g.clone();
  silu_multiply(backend, columns(g.view(), 1, 11), columns(u.view(), 1, 11));
  for (index_t i = 0; i < 17; ++i)
    for (index_t j = 0; j < 13; ++j) {
      double const x = static_cast<double>(before(i, j));
      double const expected = j == 0 || j == 12 ? x : x / (1 + std::exp(-x)) * static_cast<double>(u(i, j));
      CHECK(std::abs(static_cast<double>(g(i, j)) - expected) <= 1e-6 * std::abs(expected));
    }
  CHECK_THROWS_AS(silu_multiply(backend, g.view(), columns(u.view(), 0, 12)), error);
  CHECK_NOTHROW(silu_multiply(backend, rows(g.view(), 0, 0), rows(u.view(), 0, 0)));
}

namespace {

struct fusing_backend : reference_backend {
  mutable int calls = 0;
  void silu_multiply(matrix_view<float>, matrix_view<float const>) const { ++calls; }
};

}  // namespace

TEST_CASE("a backend's own silu_multiply is taken") {
  fusing_backend const backend;
  tensor<float, 2> g(2, 2), u(2, 2);
  silu_multiply(backend, g.view(), u.view());
  CHECK(backend.calls == 1);
}

}  // namespace model_elementwise_test
