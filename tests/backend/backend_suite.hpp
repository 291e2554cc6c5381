// The typed suite: what every backend must do, checked against the reference backend.
//
// A harness names a backend and moves operands to its memory (see operand.hpp); a test file adds its backend with
// `SLIMTRIM_BACKEND_SUITE(my_harness)`. Tolerances come from the standard bound for a sum of k products in arithmetic
// of unit roundoff u, |error| <= (k + 3) u sum |a b| in any order; normalised by the sums of magnitudes, the mean
// squared error stays below ((k + 3) u)^2. Two of them are allowed, since the reference rounds in double as well.
#pragma once

#include "backend/operand.hpp"

#include <doctest/doctest.h>
#include <slimtrim/backend/reference.hpp>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>

namespace backend_tests {

template <class T>
inline constexpr double unit_roundoff = std::is_same_v<T, double> ? 0x1p-53 : 0x1p-24;

inline layout pick(layout const* from, std::uint64_t count, std::uint64_t stream) {
  return from[random_bits_at(23, 1, stream) % count];
}
inline layout any_layout(std::uint64_t stream) { return pick(all_layouts, std::size(all_layouts), stream); }
inline layout any_writable(std::uint64_t stream) { return pick(writable_layouts, std::size(writable_layouts), stream); }

template <class T>
operand<T> magnitudes(operand<T> x) {
  auto const view = x.host();
  for (index_t i = 0; i < view.extent(0); ++i)
    for (index_t j = 0; j < view.extent(1); ++j) view(i, j) = std::abs(view(i, j));
  return x;
}

// sum (found - expected)^2 / sum scale^2; infinite when anything is not finite. Zero over zero is zero.
template <class T>
double nmse(matrix_view<T const> found, matrix_view<T const> expected, matrix_view<T const> scale) {
  double error = 0, norm = 0;
  for (index_t i = 0; i < found.extent(0); ++i)
    for (index_t j = 0; j < found.extent(1); ++j) {
      double const difference = static_cast<double>(found(i, j)) - static_cast<double>(expected(i, j));
      error += difference * difference;
      norm += static_cast<double>(scale(i, j)) * static_cast<double>(scale(i, j));
    }
  if (!std::isfinite(error)) return std::numeric_limits<double>::infinity();
  return error == 0 ? 0 : error / norm;
}

template <class T>
double sum_tolerance(index_t terms) {
  double const bound = 2 * static_cast<double>(terms + 3) * unit_roundoff<T>;
  return bound * bound;
}

template <class T>
void check_close(operand<T>& found, operand<T>& expected, operand<T>& scale, double tolerance) {
  double const distance = nmse(as_const(found.host()), as_const(expected.host()), as_const(scale.host()));
  CAPTURE(tolerance);
  CHECK(distance <= tolerance);
  CHECK(found.intact_outside());
}

template <class Harness, class T>
void check_dot(Harness& harness) {
  std::uint64_t stream = 0;
  for (index_t n : {0, 1, 2, 17, 255, 4096, 4101, 10000}) {
    ++stream;
    auto x = operand<T>::random(n, 1, any_layout(stream), 2 * stream);
    auto y = operand<T>::random(n, 1, any_layout(stream + 50), 2 * stream + 1);
    double found = 0;
    {
      placed<Harness, T> const a(harness, x), b(harness, y);
      found = harness.backend().dot(a.reading_vector(), b.reading_vector());
    }
    double expected = 0, scale = 0;
    for (index_t i = 0; i < n; ++i) {
      double const product = static_cast<double>(x.host()(i, 0)) * static_cast<double>(y.host()(i, 0));
      expected += product;
      scale += std::abs(product);
    }
    CAPTURE(n);
    CHECK(std::abs(found - expected) <= std::sqrt(sum_tolerance<T>(n)) * scale);
    CHECK(x.untouched());
  }
}

template <class Harness, class T>
void check_row_dots(Harness& harness) {
  std::uint64_t stream = 100;
  for (index_t n : {0, 1, 65, 130})
    for (index_t m : {0, 1, 17, 300}) {
      ++stream;
      auto X = operand<T>::random(n, m, any_layout(stream), 2 * stream);
      auto Y = operand<T>::random(n, m, any_layout(stream + 50), 2 * stream + 1);
      operand<T> found(n, 1, any_writable(stream)), expected(n, 1, layout::rows), scale(n, 1, layout::rows);
      {
        placed<Harness, T> const a(harness, X), b(harness, Y), out(harness, found);
        harness.backend().row_dots(a.reading(), b.reading(), out.vector());
      }
      reference_backend{}.row_dots(as_const(X.host()), as_const(Y.host()), column(expected.host(), 0));
      auto absX = magnitudes(X), absY = magnitudes(Y);
      reference_backend{}.row_dots(as_const(absX.host()), as_const(absY.host()), column(scale.host(), 0));
      CAPTURE(n);
      CAPTURE(m);
      check_close(found, expected, scale, sum_tolerance<T>(m));
    }
}

template <class Harness, class T>
void check_column_square_sums(Harness& harness) {
  std::uint64_t stream = 200;
  for (index_t n : {0, 1, 17, 301})
    for (index_t m : {0, 1, 130, 600}) {
      ++stream;
      auto X = operand<T>::random(n, m, any_layout(stream), stream);
      operand<T> found(m, 1, any_writable(stream)), expected(m, 1, layout::rows);
      {
        placed<Harness, T> const a(harness, X), out(harness, found);
        harness.backend().column_square_sums(a.reading(), out.vector());
      }
      reference_backend{}.column_square_sums(as_const(X.host()), column(expected.host(), 0));
      CAPTURE(n);
      CAPTURE(m);
      check_close(found, expected, expected, sum_tolerance<T>(n));
    }
}

template <class Harness, class T>
void check_gemm_of(Harness& harness, index_t n, index_t k, index_t m, layout a_layout, layout b_layout, layout c_layout,
                   T alpha, T beta, std::uint64_t stream) {
  auto A = operand<T>::random(n, k, a_layout, 3 * stream), B = operand<T>::random(k, m, b_layout, 3 * stream + 1);
  // With beta = 0 the output starts as NaN, which must not be read.
  auto found = beta == T{0} ? operand<T>(n, m, c_layout) : operand<T>::random(n, m, c_layout, 3 * stream + 2);
  auto expected = found, scale = magnitudes(found), absA = magnitudes(A), absB = magnitudes(B);
  {
    placed<Harness, T> const a(harness, A), b(harness, B), c(harness, found);
    harness.backend().gemm(alpha, a.reading(), b.reading(), beta, c.view());
  }
  reference_backend{}.gemm(alpha, as_const(A.host()), as_const(B.host()), beta, expected.host());
  reference_backend{}.gemm(std::abs(alpha), as_const(absA.host()), as_const(absB.host()), std::abs(beta), scale.host());
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(m);
  CAPTURE(static_cast<int>(a_layout));
  CAPTURE(static_cast<int>(b_layout));
  CAPTURE(static_cast<int>(c_layout));
  check_close(found, expected, scale, sum_tolerance<T>(k));
  CHECK(A.untouched());
  CHECK(B.untouched());
}

template <class Harness, class T>
void check_gemm(Harness& harness) {
  std::uint64_t stream = 300;
  for (layout a : all_layouts)
    for (layout b : all_layouts)
      for (layout c : writable_layouts) check_gemm_of<Harness, T>(harness, 5, 17, 9, a, b, c, T{1}, T{0}, ++stream);
  for (index_t n : {0, 1, 17, 193})
    for (index_t k : {0, 1, 17, 300})
      for (index_t m : {0, 1, 16, 257}) {
        ++stream;
        check_gemm_of<Harness, T>(harness, n, k, m, any_layout(stream), any_layout(stream + 50), any_writable(stream),
                                  static_cast<T>(-1.5), static_cast<T>(stream % 3) / 2, stream);
      }
}

// Two products over one address: a matrix with its own transpose, and two matrices that merely begin together.
template <class Harness, class T>
void check_gemm_of_shared_storage(Harness& harness) {
  for (index_t m : {4, 7}) {
    index_t const k = 6, n = 4;
    auto X = operand<T>::random(k, 7, layout::rows, 4000);
    operand<T> found(n, m, layout::rows), expected = found;
    {
      placed<Harness, T> const x(harness, X), c(harness, found);
      auto const start = x.reading().data;
      using view = decltype(x.reading());
      harness.backend().gemm(T{1}, transposed(view(start, k, n)), view(start, k, m), T{0}, c.view());
    }
    auto const start = as_const(X.host()).data;
    using view = matrix_view<T const>;
    reference_backend{}.gemm(T{1}, transposed(view(start, k, n)), view(start, k, m), T{0}, expected.host());
    // |x y| summed over 6 normal variables is about 4; scale 1 only tightens the bound.
    operand<T> one(n, m, layout::rows);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j) one.host()(i, j) = T{4};
    check_close(found, expected, one, sum_tolerance<T>(k));
  }
}

template <class Harness, class T>
void check_gram_update(Harness& harness) {
  std::uint64_t stream = 600;
  for (index_t n : {0, 1, 17, 300})
    for (index_t m : {0, 1, 17, 70, 257}) {
      ++stream;
      auto X = operand<T>::random(n, m, any_layout(stream), 2 * stream);
      auto found = operand<T>(m, m, any_writable(stream));
      for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < m; ++j)
          found.host()(i, j) = static_cast<T>(normal_at(3, stream, static_cast<std::uint64_t>(std::max(i, j) * m + std::min(i, j))));
      found.record();
      auto expected = found, scale = magnitudes(found), absX = magnitudes(X);
      {
        placed<Harness, T> const x(harness, X), h(harness, found);
        harness.backend().gram_update(T{2}, x.reading(), h.view());
      }
      reference_backend{}.gram_update(T{2}, as_const(X.host()), expected.host());
      reference_backend{}.gram_update(T{2}, as_const(absX.host()), scale.host());
      CAPTURE(n);
      CAPTURE(m);
      check_close(found, expected, scale, sum_tolerance<T>(n));
      bool symmetric = true;
      for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < i; ++j) symmetric = symmetric && found.host()(i, j) == found.host()(j, i);
      CHECK(symmetric);
    }
}

// I / 2 + XᵀX / n with n = 2 m + 8 rows: eigenvalues between 0.5 and about 3.5, so the condition stays below 16.
template <class T>
operand<T> well_conditioned(index_t m, layout how, std::uint64_t stream) {
  index_t const n = 2 * m + 8;
  auto X = operand<double>::random(n, m, layout::rows, stream);
  operand<double> H(m, m, layout::rows);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) H.host()(i, j) = i == j ? 0.5 : 0.0;
  reference_backend{}.gram_update(1.0 / static_cast<double>(n), as_const(X.host()), H.host());
  operand<T> result(m, m, how);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) result.host()(i, j) = static_cast<T>(H.host()(i, j));
  result.record();
  return result;
}

// A factorisation in arithmetic of roundoff v, then one rounding to T: relative error about 16 (m + 3) v + u.
template <class Harness, class T>
double factor_tolerance(index_t m) {
  double const bound = 32 * static_cast<double>(m + 3) * Harness::factor_roundoff + 2 * unit_roundoff<T>;
  return bound * bound;
}

template <class Harness, class T>
void check_inverse_factor(Harness& harness) {
  std::uint64_t stream = 800;
  for (index_t m : {0, 1, 2, 17, 63, 64, 65, 130, 200}) {
    ++stream;
    auto H = well_conditioned<T>(m, any_writable(stream), stream);
    operand<T> found(m, m, any_writable(stream + 50)), expected(m, m, layout::rows);
    bool done = false;
    {
      placed<Harness, T> const h(harness, H), r(harness, found);
      done = harness.backend().inverse_factor(h.reading(), r.view());
    }
    REQUIRE(done);
    CHECK(reference_backend{}.inverse_factor(as_const(H.host()), expected.host()));
    CAPTURE(m);
    check_close(found, expected, expected, factor_tolerance<Harness, T>(m));
    CHECK(H.untouched());
    bool upper = true;
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < i; ++j) upper = upper && found.host()(i, j) == T{0};
    CHECK(upper);
  }
}

template <class Harness, class T>
void check_solve(Harness& harness) {
  std::uint64_t stream = 900;
  for (index_t m : {0, 1, 17, 65, 130})
    for (index_t p : {0, 1, 19}) {
      ++stream;
      auto H = well_conditioned<T>(m, any_writable(stream), stream);
      auto found = operand<T>::random(m, p, any_writable(stream + 50), stream);
      auto expected = found, reference_H = H;
      bool done = false;
      {
        placed<Harness, T> const h(harness, H), b(harness, found);
        done = harness.backend().solve_positive_definite(h.view(), b.view());
      }
      REQUIRE(done);
      CHECK(reference_backend{}.solve_positive_definite(reference_H.host(), expected.host()));
      CAPTURE(m);
      CAPTURE(p);
      check_close(found, expected, expected, factor_tolerance<Harness, T>(m));
      CHECK(H.intact_outside());
    }
}

// Matrices that have no Cholesky factor, whichever end it begins at.
template <class T>
void spoil(matrix_view<T> H, int way) {
  index_t const last = H.extent(0) - 1;
  auto const quiet_nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  auto const set_pair = [&](index_t i, index_t j, T value) { H(i, j) = H(j, i) = value; };
  switch (way) {
    case 0: set_pair(0, 0, T{-1}); break;
    case 1: set_pair(last, last, T{-1}); break;
    case 2: set_pair(0, 0, quiet_nan); break;
    case 3: set_pair(last, 0, quiet_nan); break;
    case 4: set_pair(last, last, infinity); break;
    case 5: set_pair(last / 2, last / 2, T{0}); break;
    case 6: set_pair(last, 0, T{100}); break;
    default:  // rank one, exactly: the second pivot is zero
      for (index_t i = 0; i <= last; ++i)
        for (index_t j = 0; j <= last; ++j) H(i, j) = T{1};
  }
}

template <class Harness, class T>
void check_not_positive_definite(Harness& harness) {
  for (int way = 0; way < 8; ++way)
    for (index_t m : {2, 5, 70, 130}) {
      CAPTURE(way);
      CAPTURE(m);
      auto H = well_conditioned<T>(m, layout::padded_rows, 77);
      spoil(H.host(), way);
      H.record();
      operand<T> R(m, m, layout::padded_columns);
      auto B = operand<T>::random(m, 3, layout::padded_rows, 5);
      bool factored = true, solved = true;
      {
        placed<Harness, T> const h(harness, H), r(harness, R);
        factored = harness.backend().inverse_factor(h.reading(), r.view());
      }
      CHECK_FALSE(factored);
      CHECK(R.intact_outside());
      CHECK(H.untouched());
      {
        placed<Harness, T> const h(harness, H), b(harness, B);
        solved = harness.backend().solve_positive_definite(h.view(), b.view());
      }
      CHECK_FALSE(solved);
      CHECK(B.intact_outside());
    }
}

template <class Harness, class T>
void check_top_k(Harness& harness) {
  std::uint64_t stream = 1000;
  for (index_t n : {0, 1, 3, 130})
    for (index_t m : {1, 2, 8, 17, 64, 300})
      for (index_t k : {index_t{0}, index_t{1}, index_t{2}, m}) {
        if (k > m) continue;
        ++stream;
        auto X = operand<T>::random(n, m, any_writable(stream), stream);
        // Few distinct values make ties; every eleventh element is NaN or infinite, and one row is nothing but NaN.
        auto const x = X.host();
        for (index_t i = 0; i < n; ++i)
          for (index_t j = 0; j < m; ++j) {
            std::uint64_t const dice = random_bits_at(9, stream, static_cast<std::uint64_t>(i * m + j)) % 33;
            x(i, j) = static_cast<T>(std::round(2 * x(i, j)));
            if (dice == 0 || i == 2) x(i, j) = std::numeric_limits<T>::quiet_NaN();
            if (dice == 1) x(i, j) = std::numeric_limits<T>::infinity();
            if (dice == 2) x(i, j) = -std::numeric_limits<T>::infinity();
          }
        X.record();
        operand<std::int32_t> found(n, k, any_writable(stream + 50)), expected(n, k, layout::rows);
        {
          placed<Harness, T> const a(harness, X);
          placed<Harness, std::int32_t> const out(harness, found);
          harness.backend().top_k(a.reading(), out.view());
        }
        reference_backend{}.top_k(as_const(X.host()), expected.host());
        bool equal = true;
        for (index_t i = 0; i < n; ++i)
          for (index_t j = 0; j < k; ++j) equal = equal && found.host()(i, j) == expected.host()(i, j);
        CAPTURE(n);
        CAPTURE(m);
        CAPTURE(k);
        CHECK(equal);
        CHECK(found.intact_outside());
      }
}

// Runs one check for both element types.
#define SLIMTRIM_SUITE_CHECK(check)               \
  SUBCASE(#check) {                               \
    Harness harness;                              \
    backend_tests::check<Harness, float>(harness);  \
    backend_tests::check<Harness, double>(harness); \
  }

// Adds the suite for a harness: `memory`, `factor_roundoff`, `backend()`, `upload` and `download`.
#define SLIMTRIM_BACKEND_SUITE(harness_type)                                     \
  TEST_CASE(#harness_type ": the primitives agree with the reference backend") { \
    using Harness = harness_type;                                                \
    SLIMTRIM_SUITE_CHECK(check_dot)                                              \
    SLIMTRIM_SUITE_CHECK(check_row_dots)                                         \
    SLIMTRIM_SUITE_CHECK(check_column_square_sums)                               \
    SLIMTRIM_SUITE_CHECK(check_gemm)                                             \
    SLIMTRIM_SUITE_CHECK(check_gemm_of_shared_storage)                           \
    SLIMTRIM_SUITE_CHECK(check_gram_update)                                      \
    SLIMTRIM_SUITE_CHECK(check_inverse_factor)                                   \
    SLIMTRIM_SUITE_CHECK(check_solve)                                            \
    SLIMTRIM_SUITE_CHECK(check_not_positive_definite)                            \
    SLIMTRIM_SUITE_CHECK(check_top_k)                                            \
  }

// A harness for a backend on host memory whose default constructor is enough.
template <class Backend>
struct host_harness : host_memory {
  static constexpr space memory = space::host;
  static constexpr double factor_roundoff = 0x1p-53;
  [[nodiscard]] Backend const& backend() const { return backend_; }

 private:
  Backend backend_{};
};

}  // namespace backend_tests
