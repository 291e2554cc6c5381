// Scales of groups: the search against a plain one, and values at which a scale could go wrong.
#include <slimtrim/slim/quantize/scale_search.hpp>

#include <slimtrim/core/random.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace slim_quantize_scale_search_test {

using namespace slimtrim;

namespace {

std::vector<float> normals(index_t n, std::uint64_t stream) {
  std::vector<float> w(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(normal_at(3, stream, i));
  return w;
}

double error_of(uniform_grid const& g, std::vector<float> const& w, std::vector<float> const& weights,
                scale_and_zero at) {
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    double const d = static_cast<double>(w[i]) - static_cast<double>(g.decode(g.encode(w[i], at), at));
    sum += static_cast<double>(weights[i]) * d * d;
  }
  return sum;
}

}  // namespace

TEST_CASE("candidates side by side are those of from_range, one by one") {
  scale_search const search{.candidates = 37, .highest = 1.3, .lowest = 0.1};
  for (int bits : {1, 2, 3, 4, 8})
    for (scale_type const type : {scale_type::float32, scale_type::bfloat16, scale_type::float16})
      for (float const largest : {1.0F, 0.37F, 1e-7F, 1e-38F, 1e-44F, 6e4F, 1e6F, 3e38F}) {
        uniform_grid const g{bits, true};
        detail::scale_table table;
        for (index_t const first : {0, 5}) {
          detail::fill_symmetric(g, largest, search, type, first, 32, table);
          for (index_t k = 0; k < 32; ++k) {
            double const step = static_cast<double>(first + k) / 36;
            float const factor = static_cast<float>(1.3 + (0.1 - 1.3) * step);
            scale_and_zero const at = g.from_range(-largest * factor, 0.5F * largest * factor, type);
            CHECK(table.scale[k] == at.scale);
            CHECK(static_cast<int>(-table.bottom[k]) == at.zero);
          }
        }
      }
}

TEST_CASE("errors of candidates are those of codes") {
  for (index_t const n : {1, 3, 4, 7, 32, 129})
    for (bool const symmetric : {true, false}) {
      uniform_grid const g{3, symmetric};
      auto const w = normals(n, 40 + static_cast<std::uint64_t>(n));
      std::vector<float> weights(w.size());
      for (std::size_t i = 0; i < w.size(); ++i) weights[i] = static_cast<float>(uniform_at(6, 0, i));
      std::vector<float> const ones(w.size(), 1.0F);
      detail::scale_table table;
      detail::fill_with_zeros(g, detail::range_of(w.data(), n), {}, scale_type::float32, 0, 48, table);
      for (bool const weighted : {false, true}) {
        if (weighted) {
          detail::judge_scales<true>(w.data(), weights.data(), n, 7.0F, 48, table);
        } else {
          detail::judge_scales<false>(w.data(), nullptr, n, 7.0F, 48, table);
        }
        for (index_t k = 0; k < 48; ++k) {
          scale_and_zero const at{table.scale[k], static_cast<int>(-table.bottom[k])};
          double const expected = error_of(g, w, weighted ? weights : ones, at);
          // n roundings of float; and w / scale beside w times its inverse may choose the other neighbour of a tie, of
          // equal error.
          CHECK(std::fabs(static_cast<double>(table.error[k]) - expected) <= 1e-5 * (expected + 1e-6));
        }
      }
    }
}

TEST_CASE("more candidates than lie side by side") {
  auto const w = normals(64, 12);
  std::vector<float> const ones(w.size(), 1.0F);
  uniform_grid const g{.bits = 4};
  auto const few = fit_scale(g, w.data(), 64, scale_type::float32, scale_rule::mse, nullptr, {.candidates = 64});
  auto const many = fit_scale(g, w.data(), 64, scale_type::float32, scale_rule::mse, nullptr, {.candidates = 1000});
  auto const none =
      fit_scale(g, w.data(), 64, scale_type::float32, scale_rule::mse, nullptr, {.candidates = 0, .refinements = 0});
  CHECK(error_of(g, w, ones, many) <= error_of(g, w, ones, few) * 1.001);
  CHECK(none.scale == fit_scale(g, w.data(), 64, scale_type::float32).scale);
  auto const one = fit_scale(g, w.data(), 64, scale_type::float32, scale_rule::mse, nullptr,
                             {.candidates = 1, .highest = 0.8, .refinements = 0});
  CHECK(error_of(g, w, ones, one) <= error_of(g, w, ones, none));
}

TEST_CASE("searched scales are never worse than absmax and come close to a fine exhaustive search") {
  for (int bits : {2, 3, 4, 8})
    for (bool symmetric : {true, false})
      for (index_t n : {1, 7, 16, 33, 128}) {
        uniform_grid const g{bits, symmetric};
        auto const w = normals(n, static_cast<std::uint64_t>(n));
        std::vector<float> weights(w.size());
        for (std::size_t i = 0; i < w.size(); ++i) weights[i] = static_cast<float>(uniform_at(5, 0, i)) + 0.1F;
        std::vector<float> const ones(w.size(), 1.0F);
        auto const plain = fit_scale(g, w.data(), n, scale_type::bfloat16);
        auto const searched = fit_scale(g, w.data(), n, scale_type::bfloat16, scale_rule::mse);
        auto const weighted = fit_scale(g, w.data(), n, scale_type::bfloat16, scale_rule::weighted, weights.data());
        CHECK(error_of(g, w, ones, searched) <= error_of(g, w, ones, plain) * 1.0001 + 1e-9);
        CHECK(error_of(g, w, weights, weighted) <= error_of(g, w, weights, plain) * 1.0001 + 1e-9);
        if (symmetric && n == 128) {
          double least = 1e300;
          for (int step = 1; step <= 4000; ++step) {
            scale_and_zero const at{
                round_scale(static_cast<double>(plain.scale) * 1.2 * step / 4000, scale_type::float32, 3), g.middle()};
            least = std::min(least, error_of(g, w, weights, at));
          }
          // A finer search gains little: the error is nearly flat around its minimum.
          CHECK(error_of(g, w, weights, weighted) <= least * (bits == 8 ? 1.25 : 1.06));
        }
      }
}

TEST_CASE("uniform weights give the unweighted scale") {
  auto const w = normals(96, 9);
  std::vector<float> const twos(w.size(), 2.0F);
  uniform_grid const g{.bits = 3};
  auto const a = fit_scale(g, w.data(), 96, scale_type::float32, scale_rule::mse);
  auto const b = fit_scale(g, w.data(), 96, scale_type::float32, scale_rule::weighted, twos.data());
  CHECK(a.scale == b.scale);
}

TEST_CASE("groups that are zero, constant, huge, tiny or spiky give usable scales") {
  std::vector<std::vector<float>> const groups = {
      std::vector<float>(16, 0.0F),        std::vector<float>(16, 3.0F),   std::vector<float>(16, -3.0F),
      std::vector<float>(16, 3e38F),       std::vector<float>(16, 1e-44F), {1e4F, 1e-3F, -1e-3F, 0, 0, 0, 0, 0},
      {65504.0F, -65504.0F, 1e20F, -1e20F}};
  for (auto const& w : groups)
    for (auto rule : {scale_rule::absmax, scale_rule::mse})
      for (auto type : {scale_type::float32, scale_type::bfloat16, scale_type::float16})
        for (bool symmetric : {true, false}) {
          uniform_grid const g{4, symmetric};
          auto const at = fit_scale(g, w.data(), static_cast<index_t>(w.size()), type, rule);
          REQUIRE(std::isfinite(at.scale));
          REQUIRE(at.scale > 0);
          REQUIRE(at.zero >= 0);
          REQUIRE(at.zero <= 15);
          for (float value : w) REQUIRE(std::isfinite(g.decode(g.encode(value, at), at)));
        }
}

}  // namespace slim_quantize_scale_search_test
