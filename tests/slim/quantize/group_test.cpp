#include <slimtrim/slim/quantize/group.hpp>

#include <doctest/doctest.h>

#include <slimtrim/core/random.hpp>

#include <cmath>
#include <vector>

namespace slim_quantize_group_test {

using namespace slimtrim;

namespace {

std::vector<float> normals(index_t n, std::uint64_t stream) {
  std::vector<float> w(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(normal_at(3, stream, i));
  return w;
}

double error_of(uniform_grid const& g, std::vector<float> const& w, std::vector<float> const& weights, scale_and_zero at) {
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    double const d = static_cast<double>(w[i]) - static_cast<double>(g.decode(g.encode(w[i], at), at));
    sum += static_cast<double>(weights[i]) * d * d;
  }
  return sum;
}

}  // namespace

TEST_CASE("shapes") {
  grouping const g{group_kind::group, 5};
  CHECK(g.groups(12) == 3);  // 5 + 5 + 2
  CHECK(grouping{group_kind::channel}.groups(12) == 1);
  CHECK(grouping{group_kind::tensor}.block_rows(7) == 7);
  CHECK_THROWS_AS((grouping{group_kind::group, 0}.check()), error);
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
            scale_and_zero const at{round_scale(static_cast<double>(plain.scale) * 1.2 * step / 4000, scale_type::float32, 3), g.middle()};
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
      std::vector<float>(16, 0.0F), std::vector<float>(16, 3.0F), std::vector<float>(16, -3.0F),
      std::vector<float>(16, 3e38F), std::vector<float>(16, 1e-44F), {1e4F, 1e-3F, -1e-3F, 0, 0, 0, 0, 0},
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

}  // namespace slim_quantize_group_test
