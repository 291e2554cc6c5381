#include <slimtrim/slim/quantize/rtn.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace slim_quantize_rtn_test {

using namespace slimtrim;

namespace {

template <class T>
matrix<T> random_matrix(index_t n, index_t m) {
  matrix<T> w(n, m);
  for (index_t r = 0; r < n; ++r)
    for (index_t c = 0; c < m; ++c)
      w(r, c) = static_cast<T>(static_cast<float>(0.02 * normal_at(11, static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(c))));
  return w;
}

// The definition, element by element in double, for a symmetric or asymmetric grid with float32 scales.
double naive(matrix<float> const& w, index_t r, index_t c, int bits, bool symmetric, index_t group) {
  index_t const first = c / group * group, last = std::min(first + group, w.extent(1));
  double low = 0, high = 0;
  for (index_t k = first; k < last; ++k) {
    low = std::min(low, static_cast<double>(w(r, k)));
    high = std::max(high, static_cast<double>(w(r, k)));
  }
  double const steps = (1 << bits) - 1, half = 1 << (bits - 1);
  if (symmetric) {
    double const scale = static_cast<double>(static_cast<float>(std::max(-low, high) / (steps / 2)));
    return std::nearbyint(std::min(std::max(static_cast<double>(w(r, c)) / scale, -half), half - 1)) * scale;
  }
  double const scale = static_cast<double>(static_cast<float>((high - low) / steps));
  double const zero = std::nearbyint(-low / scale) - half;
  return (std::nearbyint(std::min(std::max(static_cast<double>(w(r, c)) / scale + zero, -half), half - 1)) - zero) * scale;
}

bool same_bytes(quantized_matrix const& a, quantized_matrix const& b) {
  auto const equal = [](auto const& x, auto const& y) {
    return x.size() == y.size() &&
           (x.size() == 0 || std::memcmp(x.data, y.data, static_cast<std::size_t>(x.size()) * sizeof(*x.data)) == 0);
  };
  return equal(a.words.view(), b.words.view()) && equal(a.scales.view(), b.scales.view()) &&
         equal(a.zeros.view(), b.zeros.view());
}

}  // namespace

TEST_CASE("rtn equals the definition") {
  auto const w = random_matrix<float>(5, 70);
  for (int bits : {2, 3, 4, 8})
    for (bool symmetric : {true, false})
      for (index_t group : {70, 32, 16}) {
        auto const q = rtn(reference_backend{}, w.view(), {.grid = {bits, symmetric}, .groups = {group_kind::group, group},
                                                           .scales_stored_as = scale_type::float32});
        auto const v = q.view();
        int different = 0;
        for (index_t r = 0; r < 5; ++r)
          for (index_t c = 0; c < 70; ++c) {
            double const step = static_cast<double>(q.scales(r, c / group));
            // The value that sets a symmetric scale lies on a rounding boundary and may fall either way, by one step;
            // everything else is exact to float.
            double const off = std::fabs(static_cast<double>(v(r, c)) - naive(w, r, c, bits, symmetric, group));
            if (off > 1e-6 * step * 256) ++different;
            CHECK(off <= 1.001 * step);
          }
        CHECK(different <= (symmetric ? q.scales.view().size() : 1));
      }
}

TEST_CASE("decoded error is bounded by half a step, in all storage types and layouts") {
  auto const check = [](auto const& w, auto const& q) {
    auto const v = q.view();
    for (index_t r = 0; r < w.extent(0); ++r)
      for (index_t c = 0; c < w.extent(1); ++c) {
        float const value = static_cast<float>(w(r, c)), step = v.scales(r / v.block_rows, v.group_of(c));
        // Half a step, and for the top of a symmetric grid the scale's rounding times the largest code.
        REQUIRE(std::fabs(v(r, c) - value) <= step * (0.5F + 8.0F / 256.0F));
      }
  };
  eigen_backend const backend;
  for (auto kind : {group_kind::tensor, group_kind::channel, group_kind::group}) {
    quantize_options const options{.groups = {kind, 32}};
    auto const f = random_matrix<float>(33, 100);
    check(f.view(), rtn(backend, f, options));
    auto const b = random_matrix<bfloat16>(33, 100);
    check(b.view(), rtn(backend, b, options));
    auto const h = random_matrix<float16>(33, 100);
    check(h.view(), rtn(backend, h, options));
    check(transposed(f.view()), rtn(backend, transposed(f.view()), options));
  }
}

TEST_CASE("any number of threads gives the same bytes") {
  auto const w = random_matrix<bfloat16>(77, 300);
  quantize_options const options{.grid = {3, false}, .groups = {group_kind::group, 64}, .scale = scale_rule::mse};
  auto const alone = rtn(eigen_backend{}, w, options);
  for (index_t threads : {2, 3, 7}) {
    thread_pool pool(threads);
    CHECK(same_bytes(alone, rtn(eigen_backend(pool), w, options)));
  }
}

TEST_CASE("a searched scale lowers the squared error") {
  auto const w = random_matrix<float>(16, 256);
  auto const error = [&](scale_rule rule) {
    auto const q = rtn(eigen_backend{}, w, {.grid = {3, true}, .scale = rule});
    double sum = 0;
    for (index_t r = 0; r < 16; ++r)
      for (index_t c = 0; c < 256; ++c) sum += std::pow(static_cast<double>(w(r, c)) - static_cast<double>(q.view()(r, c)), 2);
    return sum;
  };
  CHECK(error(scale_rule::mse) < 0.9 * error(scale_rule::absmax));
}

TEST_CASE("a value that is not finite is named, whatever the storage type and threads") {
  thread_pool pool(3);
  eigen_backend const backend(pool);
  auto const message = [&](auto& w, float poison, index_t r, index_t c) {
    using T = std::remove_reference_t<decltype(w(0, 0))>;
    T const before = w(r, c);
    w(r, c) = static_cast<T>(poison);
    std::string text;
    try {
      (void)rtn(backend, w, {.groups = {group_kind::group, 16}});
    } catch (input_error const& e) {
      text = e.what();
    }
    w(r, c) = before;
    return text;
  };
  float const nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  auto f = random_matrix<float>(40, 50);
  auto b = random_matrix<bfloat16>(40, 50);
  auto h = random_matrix<float16>(40, 50);
  CHECK(message(f, nan, 0, 0) == "rtn: W[0, 0]: expected a finite value, found NaN");
  CHECK(message(b, -inf, 39, 49) == "rtn: W[39, 49]: expected a finite value, found Inf");
  CHECK(message(h, nan, 20, 17) == "rtn: W[20, 17]: expected a finite value, found NaN");
  CHECK(message(f, 1.0F, 3, 3).empty());
}

TEST_CASE("empty, one element, zero rows and extreme values") {
  eigen_backend const backend;
  matrix<float> none(0, 8), one(1, 1);
  CHECK(rtn(backend, none, {}).rows == 0);
  one(0, 0) = -0.25F;
  CHECK(rtn(backend, one, {.scales_stored_as = scale_type::float32}).view()(0, 0) == doctest::Approx(-0.25).epsilon(0.07));
  matrix<float> w(3, 16);
  w.fill(0.0F);
  for (index_t c = 0; c < 16; ++c) {
    w(1, c) = c % 2 == 0 ? 3e38F : -3e38F;
    w(2, c) = c % 2 == 0 ? 1e-45F : -1e-40F;
  }
  for (auto rule : {scale_rule::absmax, scale_rule::mse})
    for (bool symmetric : {true, false}) {
      auto const q = rtn(backend, w, {.grid = {4, symmetric}, .groups = {group_kind::group, 16}, .scale = rule});
      for (index_t r = 0; r < 3; ++r)
        for (index_t c = 0; c < 16; ++c) CHECK(std::isfinite(q.view()(r, c)));
      CHECK(q.view()(0, 3) == 0.0F);
    }
}

TEST_CASE("round_to_grid with FP8 and MXFP4") {
  auto const w = random_matrix<float>(4, 64);
  matrix<float> out(4, 64);
  round_to_grid(eigen_backend{}, w, float8_grid{}, {group_kind::channel}, scale_type::float32, out.view());
  for (index_t r = 0; r < 4; ++r)
    for (index_t c = 0; c < 64; ++c) CHECK(std::fabs(out(r, c) - w(r, c)) <= std::fabs(w(r, c)) / 16.0F + 1e-6F);
  round_to_grid(eigen_backend{}, w, mxfp4_grid{}, {group_kind::group, 32}, scale_type::bfloat16, out.view());
  for (index_t r = 0; r < 4; ++r)
    for (index_t c = 0; c < 64; ++c) CHECK(std::fabs(out(r, c) - w(r, c)) <= std::fabs(w(r, c)) / 3.0F + 0.01F);
}

}  // namespace slim_quantize_rtn_test
