#include <slimtrim/model/rope.hpp>

#include <slimtrim/core/random.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <doctest/doctest.h>

#include <complex>
#include <vector>

namespace model_rope_test {

using namespace slimtrim;

namespace {

tensor<float, 2> heads_of(index_t tokens, index_t columns) {
  tensor<float, 2> x(tokens, columns);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < columns; ++j)
      x(t, j) = static_cast<float>(normal_at(2, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(j)));
  return x;
}

}  // namespace

TEST_CASE("pairs (j, j + half) turn by position * theta^(-2j / dim)") {
  index_t const dim = 6;
  std::vector<index_t> const positions{0, 1, 9, 200};
  auto x = heads_of(4, 2 * dim);
  auto const before = x.clone();
  rotary_table table;
  table.prepare(positions, dim, 1000);
  table.rotate(nullptr, x.view());
  for (index_t t = 0; t < 4; ++t)
    for (index_t h = 0; h < 2; ++h)
      for (index_t j = 0; j < dim / 2; ++j) {
        double const angle = static_cast<double>(positions[static_cast<std::size_t>(t)]) *
                             std::pow(1000.0, -2.0 * static_cast<double>(j) / static_cast<double>(dim));
        std::complex<double> const z(static_cast<double>(before(t, h * dim + j)),
                                     static_cast<double>(before(t, h * dim + j + dim / 2)));
        auto const turned = z * std::polar(1.0, angle);
        // The angle is rounded to float: 200 * 6e-8 radians.
        CHECK(static_cast<double>(x(t, h * dim + j)) == doctest::Approx(turned.real()).epsilon(1e-4));
        CHECK(static_cast<double>(x(t, h * dim + j + dim / 2)) == doctest::Approx(turned.imag()).epsilon(1e-4));
      }
}

TEST_CASE("scores depend on the distance of positions only; linear scaling divides positions") {
  auto const q = heads_of(1, 8), k = heads_of(2, 8);
  auto const score = [&](index_t at_q, index_t at_k, double factor) {
    auto a = q.clone();
    tensor<float, 2> b(1, 8);
    for (index_t j = 0; j < 8; ++j) b(0, j) = k(1, j);
    rotary_table table;
    table.prepare(std::vector<index_t>{at_q}, 8, 10000, factor);
    table.rotate(nullptr, a.view());
    table.prepare(std::vector<index_t>{at_k}, 8, 10000, factor);
    table.rotate(nullptr, b.view());
    double sum = 0;
    for (index_t j = 0; j < 8; ++j) sum += static_cast<double>(a(0, j)) * static_cast<double>(b(0, j));
    return sum;
  };
  CHECK(score(7, 3, 1) == doctest::Approx(score(104, 100, 1)).epsilon(1e-4));
  CHECK(score(14, 6, 2) == doctest::Approx(score(7, 3, 1)).epsilon(1e-4));
  CHECK(score(7, 3, 1) != doctest::Approx(score(8, 3, 1)).epsilon(1e-4));
}

TEST_CASE("bad shapes are refused") {
  rotary_table table;
  CHECK_THROWS_AS(table.prepare(std::vector<index_t>{0}, 5, 10000), error);
  table.prepare(std::vector<index_t>{0}, 4, 10000);
  tensor<float, 2> x(2, 4), odd(1, 6);
  CHECK_THROWS_AS(table.rotate(nullptr, x.view()), error);
  CHECK_THROWS_AS(table.rotate(nullptr, odd.view()), error);
}

}  // namespace model_rope_test
