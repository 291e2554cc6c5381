#include <slimtrim/slim/quantize/gptq.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <slim/support.hpp>
#include <slim/textbook.hpp>

#include <cstring>
#include <limits>
#include <string>

namespace slim_quantize_gptq_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

double nearest(double w, double scale, double half) {
  return std::min(std::max(std::nearbyint(w / scale), -half), half - 1) * scale;
}

// Absmax scales in float32: at the group's arrival in natural order, before the sweep in activation order.
double textbook_error(matrix<float> const& W, matrix<float> const& X, matrix<float> const& H, int bits, index_t group, bool by_activation) {
  auto const order = by_activation ? activation_order(H) : natural_order(H.extent(0));
  auto const R = upper_factor_of_inverse(H, order, 0.01);
  double const half = 1 << (bits - 1);
  double scale = 1;
  auto const Q = textbook_sweep(W, order, R, [&](std::size_t r, std::size_t j, std::vector<double> const& w) {
    std::size_t const g = static_cast<std::size_t>(group);
    if (by_activation) {
      double largest = 0;
      for (index_t k = order[j] / group * group; k < std::min(W.extent(1), order[j] / group * group + group); ++k)
        largest = std::max(largest, std::fabs(static_cast<double>(W(static_cast<index_t>(r), k))));
      scale = largest / (half - 0.5);
    } else if (j % g == 0) {
      double largest = 0;
      for (std::size_t k = j; k < std::min(w.size(), j + g); ++k) largest = std::max(largest, std::fabs(w[k]));
      scale = largest / (half - 0.5);
    }
    return nearest(w[j], scale, half);
  });
  return output_error(W, [&](index_t i, index_t j) { return Q[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)]; }, X);
}

bool same_bytes(quantized_matrix const& a, quantized_matrix const& b) {
  auto const equal = [](auto const& x, auto const& y) {
    return x.size() == y.size() && std::memcmp(x.data, y.data, static_cast<std::size_t>(x.size()) * sizeof(*x.data)) == 0;
  };
  return equal(a.words.view(), b.words.view()) && equal(a.scales.view(), b.scales.view());
}

struct problem {
  matrix<float> W = random_weight(40, 96, 21);
  matrix<float> X = random_input(400, 96, 22);
  matrix<float> H = gram_of(X);
};

}  // namespace

TEST_CASE("gptq is no worse than the textbook in float64") {
  problem const p;
  for (int bits : {2, 3, 4})
    for (index_t group : {32, 96, 40})
      for (bool by_activation : {false, true})
        for (index_t block : {16, 128}) {
          auto const result = gptq(eigen_backend{}, p.W, as_const(p.H.view()),
                                   {.grid = {bits, true},
                                    .groups = {group_kind::group, group},
                                    .scale = scale_rule::absmax,
                                    .scales_stored_as = scale_type::float32,
                                    .order = by_activation ? sweep_order::activation : sweep_order::natural,
                                    .block = block});
          double const ours = output_error(p.W, result.matrix.view(), p.X);
          CHECK(ours <= 1.01 * textbook_error(p.W, p.X, p.H, bits, group, by_activation));
          CHECK(result.report.second_order);
          CHECK(result.report.error == doctest::Approx(ours).epsilon(1e-3));
        }
}

TEST_CASE("searched scales, coordinate descent and zero points each lower the output error") {
  problem const p;
  auto const error = [&](gptq_options options) {
    options.groups = {group_kind::group, 32};
    return output_error(p.W, gptq(eigen_backend{}, p.W, as_const(p.H.view()), options).matrix.view(), p.X);
  };
  for (int bits : {2, 3, 4}) {
    double const plain = error({.grid = {bits, true}, .scale = scale_rule::absmax, .order = sweep_order::natural});
    double const searched = error({.grid = {bits, true}, .scale = scale_rule::mse, .order = sweep_order::natural});
    double const by_default = error({.grid = {bits, true}});
    double const descended = error({.grid = {bits, true}, .descent_passes = 4});
    CHECK(searched < plain);
    CHECK(by_default < 1.02 * searched);
    CHECK(descended < by_default);
  }
  auto const rounded = rtn(eigen_backend{}, p.W, {.grid = {3, true}, .groups = {group_kind::group, 32}});
  CHECK(error({.grid = {3, true}}) < 0.5 * output_error(p.W, rounded.view(), p.X));
}

TEST_CASE("any number of threads gives the same bytes, and the reference backend the same quality") {
  problem const p;
  for (auto kind : {group_kind::tensor, group_kind::channel, group_kind::group}) {
    gptq_options const options{.groups = {kind, 32}, .descent_passes = 1};
    auto const alone = gptq(eigen_backend{}, p.W, as_const(p.H.view()), options);
    for (index_t threads : {2, 5}) {
      thread_pool pool(threads);
      CHECK(same_bytes(alone.matrix, gptq(eigen_backend(pool), p.W, as_const(p.H.view()), options).matrix));
    }
    auto const reference = gptq(reference_backend{}, p.W, as_const(p.H.view()), options);
    CHECK(reference.report.error == doctest::Approx(alone.report.error).epsilon(0.02));
  }
}

TEST_CASE("storage types and layouts") {
  problem const p;
  matrix<bfloat16> b(40, 96);
  matrix<float> widened(40, 96), turned(96, 40);
  for (index_t i = 0; i < 40; ++i)
    for (index_t j = 0; j < 96; ++j) {
      b(i, j) = bfloat16(p.W(i, j));
      widened(i, j) = static_cast<float>(b(i, j));
      turned(j, i) = widened(i, j);
    }
  eigen_backend const backend;
  auto const from_float = gptq(backend, widened, as_const(p.H.view()));
  CHECK(same_bytes(from_float.matrix, gptq(backend, b, as_const(p.H.view())).matrix));
  CHECK(same_bytes(from_float.matrix, gptq(backend, transposed(turned.view()), as_const(p.H.view())).matrix));
}

TEST_CASE("never worse than rtn on the calibration tokens, whatever the Hessian") {
  eigen_backend const backend;
  int cases = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed)
    for (index_t tokens : {0, 1, 2, 7, 40}) {
      index_t const c = 16 + 8 * static_cast<index_t>(seed % 3);
      auto const W = random_weight(9, c, 100 + seed);
      auto X = random_input(tokens, c, 200 + 7 * seed);
      if (seed % 4 == 1)
        for (index_t t = 0; t < tokens; ++t) X(t, 3) *= 1e4F;  // one outlier channel
      if (seed % 4 == 2)
        for (index_t t = 1; t < tokens; ++t)
          for (index_t j = 0; j < c; ++j) X(t, j) = X(0, j);  // the same token again and again
      if (seed % 4 == 3)
        for (index_t t = 0; t < tokens; ++t)
          for (index_t j = 0; j < c / 2; ++j) X(t, j) = 0;  // half of the inputs dead
      auto const H = gram_of(X);
      gptq_options const options{.grid = {2 + static_cast<int>(seed % 3), seed % 2 == 0}, .groups = {group_kind::group, 16}};
      auto const result = gptq(backend, W, as_const(H.view()), options);
      auto const plain = rtn(backend, W, {.grid = options.grid, .groups = options.groups});
      double const ours = output_error(W, result.matrix.view(), X), theirs = output_error(W, plain.view(), X);
      // Rounding of H to float moves both sides by about 1e-6 of |dW|^2 |H|.
      CHECK(ours <= theirs * (1 + 1e-5) + 1e-9);
      CHECK(result.report.second_order == (tokens > 0));
      ++cases;
    }
  CHECK(cases == 200);
}

TEST_CASE("dead columns keep their rounded values") {
  problem p;
  for (index_t i = 0; i < 96; ++i)
    for (index_t j : {3, 50}) p.H(i, j) = p.H(j, i) = 0;
  for (auto order : {sweep_order::natural, sweep_order::activation}) {
    auto const result = gptq(eigen_backend{}, p.W, as_const(p.H.view()),
                             {.groups = {group_kind::group, 32}, .scale = scale_rule::absmax, .order = order, .guard = false});
    CHECK(result.report.dead_columns == 2);
    auto const v = result.matrix.view();
    for (index_t i = 0; i < 40; ++i)
      for (index_t j : {3, 50}) {
        float const step = v.scales(i, v.group_of(j));
        CHECK(std::fabs(v(i, j) - p.W(i, j)) <= std::max(0.51F * step, std::fabs(p.W(i, j)) - 7 * step));
      }
  }
}

TEST_CASE("Hessians that are zero, huge, tiny or not finite give finite weights") {
  problem const p;
  eigen_backend const backend;
  auto const scaled = [&](float factor) {
    matrix<float> H = p.H.clone();
    for (index_t i = 0; i < 96; ++i)
      for (index_t j = 0; j < 96; ++j) H(i, j) *= factor;
    return H;
  };
  auto const usual = gptq(backend, p.W, as_const(p.H.view()));
  CHECK(same_bytes(usual.matrix, gptq(backend, p.W, as_const(scaled(0x1p90F).view())).matrix));
  CHECK(same_bytes(usual.matrix, gptq(backend, p.W, as_const(scaled(0x1p-90F).view())).matrix));
  auto const searched = rtn(backend, p.W, {.scale = scale_rule::mse});
  auto const zero = gptq(backend, p.W, as_const(scaled(0.0F).view()));
  CHECK_FALSE(zero.report.second_order);
  CHECK(same_bytes(zero.matrix, searched));
  auto H = scaled(1.0F);
  H(5, 6) = std::numeric_limits<float>::infinity();
  auto const bad = gptq(backend, p.W, as_const(H.view()));
  CHECK_FALSE(bad.report.second_order);
  CHECK_FALSE(bad.report.hessian_finite);
  CHECK(same_bytes(bad.matrix, searched));
}

TEST_CASE("bad weights and shapes are refused; empty ones are not") {
  problem p;
  eigen_backend const backend;
  p.W(7, 8) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS((void)gptq(backend, p.W, as_const(p.H.view())), "rtn: W[7, 8]: expected a finite value, found NaN", input_error);
  CHECK_THROWS_AS((void)gptq(backend, matrix<float>(4, 95), as_const(p.H.view())), error);
  matrix<float> none(0, 96), thin(4, 0), no_hessian(0, 0);
  CHECK(gptq(backend, none, as_const(p.H.view())).matrix.rows == 0);
  CHECK(gptq(backend, thin, as_const(no_hessian.view())).matrix.columns == 0);
}

TEST_CASE("a judge that differs from the steering Hessian decides what is kept") {
  problem const p;
  auto const few = random_input(2, 96, 77);
  auto const own = gram_of(few);
  auto const result = gptq(eigen_backend{}, p.W, as_const(p.H.view()), {.groups = {group_kind::group, 32}}, as_const(own.view()));
  auto const plain = rtn(eigen_backend{}, p.W, {.groups = {group_kind::group, 32}});
  CHECK(output_error(p.W, result.matrix.view(), few) <= output_error(p.W, plain.view(), few) * (1 + 1e-5));
  CHECK(result.report.rows_kept_rtn > 0);
}

}  // namespace slim_quantize_gptq_test
