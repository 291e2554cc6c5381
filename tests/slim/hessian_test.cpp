#include <slimtrim/slim/hessian.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slim/support.hpp>

#include <limits>

namespace slim_hessian_test {

using namespace slimtrim;

namespace {

matrix<float> gram(index_t tokens, index_t c, std::uint64_t stream, float scale = 1.0F) {
  auto H = slimtrim_test::gram_of(slimtrim_test::random_input(tokens, c, stream));
  for (index_t i = 0; i < c; ++i)
    for (index_t j = 0; j < c; ++j) H(i, j) *= scale;
  return H;
}

}  // namespace

TEST_CASE("the factor is that of the normalised, damped, ordered Hessian") {
  auto H = gram(40, 12, 1);
  for (index_t i = 0; i < 12; ++i) {
    H(i, 5) = 0;
    H(5, i) = 0;  // a dead column
  }
  auto const p = prepare_hessian(reference_backend{}, as_const(H.view()), column_order::activation);
  REQUIRE(p.usable);
  CHECK(p.dead == 1);
  CHECK(p.damp == 0.01);
  CHECK(p.order[11] == 5);
  for (index_t i = 0; i + 1 < 12; ++i) CHECK(H(p.order[i], p.order[i]) >= H(p.order[i + 1], p.order[i + 1]));
  // factor * damped * factorᵀ = identity.
  for (index_t i = 0; i < 12; ++i)
    for (index_t j = 0; j < 12; ++j) {
      double sum = 0;
      for (index_t a = i; a < 12; ++a)
        for (index_t b = j; b < 12; ++b)
          sum += static_cast<double>(p.factor(i, a)) * static_cast<double>(p.damped(a, b)) * static_cast<double>(p.factor(j, b));
      CHECK(sum == doctest::Approx(i == j ? 1.0 : 0.0).epsilon(1e-4).scale(1.0));
    }
  double trace = 0;
  for (index_t i = 0; i < 12; ++i)
    if (i != 5) trace += static_cast<double>(H(i, i));
  CHECK(p.unit == doctest::Approx(trace / 11));
}

TEST_CASE("scale does not matter") {
  auto const one = gram(40, 8, 2), small = gram(40, 8, 2, 0x1p-100F), large = gram(40, 8, 2, 0x1p100F);
  eigen_backend const backend;
  auto const a = prepare_hessian(backend, as_const(one.view()), column_order::natural);
  for (auto const* other : {&small, &large}) {
    auto const b = prepare_hessian(backend, as_const(other->view()), column_order::natural);
    REQUIRE(b.usable);
    for (index_t i = 0; i < 8; ++i)
      for (index_t j = 0; j < 8; ++j) CHECK(a.factor(i, j) == b.factor(i, j));
  }
}

TEST_CASE("rank-deficient, indefinite, zero and non-finite Hessians are reported, never thrown") {
  eigen_backend const backend;
  for (index_t tokens : {1, 2, 7}) CHECK(prepare_hessian(backend, as_const(gram(tokens, 8, 3).view()), column_order::natural).usable);
  matrix<float> H(4, 4);
  H.fill(0.0F);
  CHECK_FALSE(prepare_hessian(backend, as_const(H.view()), column_order::natural).usable);
  H.fill(-1.0F);
  for (index_t i = 0; i < 4; ++i) H(i, i) = 0.5F;  // smallest eigenvalue -2.5: needs a damping of more than 1
  auto const climbed = prepare_hessian(backend, as_const(H.view()), column_order::natural);
  CHECK(climbed.usable);
  CHECK(climbed.damp_step >= 2);
  H(1, 2) = std::numeric_limits<float>::quiet_NaN();
  auto const bad = prepare_hessian(backend, as_const(H.view()), column_order::natural);
  CHECK_FALSE(bad.usable);
  CHECK_FALSE(bad.finite);
  H(1, 2) = 1e30F;  // no damping of the ladder can help
  H(2, 1) = 1e30F;
  CHECK_FALSE(prepare_hessian(backend, as_const(H.view()), column_order::natural).usable);
  matrix<float> none(0, 0), flat(2, 3);
  CHECK_FALSE(prepare_hessian(backend, as_const(none.view()), column_order::natural).usable);
  CHECK_THROWS_AS((void)prepare_hessian(backend, as_const(flat.view()), column_order::natural), error);
}

TEST_CASE("hessian_errors is the quadratic form") {
  auto const H = gram(30, 20, 4);
  auto const wide = gram(30, 300, 5);
  auto const check = [](matrix<float> const& K) {
    index_t const c = K.extent(0);
    matrix<float> D(3, c);
    for (index_t i = 0; i < 3; ++i)
      for (index_t j = 0; j < c; ++j) D(i, j) = static_cast<float>(normal_at(6, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(j)));
    double found[3];
    hessian_errors(eigen_backend{}, as_const(D.view()), as_const(K.view()), vector_view<double>(found, 3));
    for (index_t i = 0; i < 3; ++i) {
      double expected = 0;
      for (index_t a = 0; a < c; ++a)
        for (index_t b = 0; b < c; ++b)
          expected += static_cast<double>(D(i, a)) * static_cast<double>(K(a, b)) * static_cast<double>(D(i, b));
      CHECK(found[i] == doctest::Approx(expected).epsilon(1e-4));
    }
  };
  check(H);
  check(wide);
}

TEST_CASE("an under-fed expert borrows from the pool, then keeps the diagonal, then has nothing") {
  eigen_backend const backend;
  auto const pool = gram(100, 8, 7);
  auto own = gram(100, 8, 8);
  CHECK(shrink_hessian(backend, own.view(), 100, as_const(pool.view()), 100) == hessian_source::own);
  CHECK(own(0, 1) == gram(100, 8, 8)(0, 1));
  own = gram(2, 8, 8);
  auto const before = gram(2, 8, 8);
  CHECK(shrink_hessian(backend, own.view(), 2, as_const(pool.view()), 100) == hessian_source::pooled);
  CHECK(own(1, 2) == doctest::Approx(static_cast<double>(0.25F * before(1, 2) / 2 + 0.75F * pool(1, 2) / 100)));
  own = gram(2, 8, 8);
  CHECK(shrink_hessian(backend, own.view(), 2, {}, 0) == hessian_source::diagonal);
  CHECK(own(1, 2) == doctest::Approx(static_cast<double>(0.25F * before(1, 2) / 2)));
  CHECK(own(1, 1) == doctest::Approx(static_cast<double>(before(1, 1) / 2)));
  // Tokens that carry weights: the mean is over the weights.
  own = gram(2, 8, 8);
  CHECK(shrink_hessian(backend, own.view(), 2, as_const(pool.view()), 100, {}, 0.5) == hessian_source::pooled);
  CHECK(own(1, 2) == doctest::Approx(static_cast<double>(0.25F * before(1, 2) / 0.5F + 0.75F * pool(1, 2) / 100)));
  own.fill(0.0F);
  CHECK(shrink_hessian(backend, own.view(), 0, as_const(pool.view()), 100) == hessian_source::pooled);
  CHECK(own(1, 2) == doctest::Approx(static_cast<double>(pool(1, 2) / 100)));
  own.fill(0.0F);
  CHECK(shrink_hessian(backend, own.view(), 0, as_const(pool.view()), 1) == hessian_source::diagonal);
  CHECK(own(1, 2) == 0.0F);
  own.fill(0.0F);
  CHECK(shrink_hessian(backend, own.view(), 0, {}, 0) == hessian_source::none);
}

}  // namespace slim_hessian_test
