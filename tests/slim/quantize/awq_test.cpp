#include <slimtrim/slim/quantize/awq.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <slim/support.hpp>

#include <cstring>
#include <limits>

namespace slim_quantize_awq_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

struct problem {
  matrix<float> gate = random_weight(24, 64, 51), up = random_weight(20, 64, 52);
  matrix<float> X = random_input(300, 64, 53), Y = random_input(150, 64, 54);
  matrix<float> H = gram_of(X), K = gram_of(Y);
  std::vector<awq_member<float>> members{{as_const(gate.view()), as_const(H.view())}, {as_const(up.view()), as_const(K.view())}};
};

awq_options with(int bits, bool clip = true) {
  awq_options options;
  options.grid = {bits, false};
  options.groups = {group_kind::group, 32};
  options.clip = clip;
  return options;
}

// The error that a user of the scaled weight sees: q(i, j) / s_j against W.
double unscaled_error(matrix<float> const& W, quantized_matrix const& q, std::vector<float> const& s, matrix<float> const& X) {
  auto const v = q.view();
  return output_error(W, [&](index_t i, index_t j) { return v(i, j) / s[static_cast<std::size_t>(j)]; }, X);
}

}  // namespace

TEST_CASE("the errors reported are those of pushing every token through, and scales lower them") {
  problem const p;
  for (int bits : {2, 3, 4}) {
    auto const options = with(bits, false);
    auto const found = search_awq_scales(eigen_backend{}, p.members, options);
    std::vector<float> const ones(64, 1.0F);
    auto const total = [&](std::vector<float> const& s) {
      return unscaled_error(p.gate, awq(eigen_backend{}, p.gate, as_const(p.H.view()), s, options), s, p.X) +
             unscaled_error(p.up, awq(eigen_backend{}, p.up, as_const(p.K.view()), s, options), s, p.Y);
    };
    CHECK(found.error_plain == doctest::Approx(total(ones)).epsilon(1e-3));
    CHECK(found.error == doctest::Approx(total(found.scales)).epsilon(1e-3));
    CHECK(found.error < found.error_plain);
    CHECK(found.ratio > 0);
  }
}

TEST_CASE("clipping lowers the output error of each group by itself") {
  problem const p;
  // With a Hessian that has no ties between groups, the sum of the groups' errors is the whole.
  matrix<float> H = p.H.clone();
  for (index_t i = 0; i < 64; ++i)
    for (index_t j = 0; j < 64; ++j)
      if (i / 32 != j / 32) H(i, j) = 0;
  auto const form = [&](quantized_matrix const& q) {
    double sum = 0;
    for (index_t r = 0; r < 24; ++r)
      for (index_t a = 0; a < 64; ++a)
        for (index_t b = 0; b < 64; ++b)
          sum += static_cast<double>(q.view()(r, a) - p.gate(r, a)) * static_cast<double>(H(a, b)) * static_cast<double>(q.view()(r, b) - p.gate(r, b));
    return sum;
  };
  for (int bits : {2, 3, 4}) {
    double const plain = form(awq(eigen_backend{}, p.gate, as_const(H.view()), {}, with(bits, false)));
    double const clipped = form(awq(eigen_backend{}, p.gate, as_const(H.view()), {}, with(bits)));
    CHECK(clipped < plain);
    if (bits == 2) CHECK(clipped < 0.8 * plain);
  }
}

TEST_CASE("clipping is never worse than rounding on the tokens of the judge, row by row") {
  problem const p;
  // One token alone judges, all the others steer: clipping for them hurts some rows on it.
  matrix<float> const one = random_input(1, 64, 77);
  matrix<float> const judge = gram_of(one);
  std::vector<float> s(64);
  for (std::size_t j = 0; j < 64; ++j) s[j] = 0.5F + 0.05F * static_cast<float>(j);
  for (bool scaled : {false, true}) {
    auto const& scales = scaled ? s : std::vector<float>();
    auto const error_of = [&](quantized_matrix const& q, index_t row) {
      auto const v = q.view();
      double sum = 0;
      for (index_t j = 0; j < 64; ++j)
        sum += (static_cast<double>(v(row, j)) / (scaled ? static_cast<double>(s[static_cast<std::size_t>(j)]) : 1.0) - static_cast<double>(p.gate(row, j))) *
               static_cast<double>(one(0, j));
      return sum * sum;
    };
    index_t kept = -1, kept_blindly = -1;
    auto const plain = awq(eigen_backend{}, p.gate, as_const(p.H.view()), scales, with(3, false));
    auto const clipped = awq(eigen_backend{}, p.gate, as_const(p.H.view()), scales, with(3), as_const(judge.view()), &kept);
    auto const blind = awq(eigen_backend{}, p.gate, as_const(p.H.view()), scales, with(3), {}, &kept_blindly);
    bool worse = false;
    for (index_t i = 0; i < 24; ++i) {
      CHECK(error_of(clipped, i) <= error_of(plain, i) * (1 + 1e-4) + 1e-9);
      worse = worse || error_of(blind, i) > error_of(plain, i) * 1.01;
    }
    CHECK(worse);  // or this would prove nothing
    CHECK(kept > 0);
    CHECK(kept < 24);
    CHECK(kept_blindly < kept);
  }
}

TEST_CASE("channels tied together share one scale, and members may round differently") {
  problem p;
  for (index_t i = 0; i < 64; i += 9)
    for (index_t j = 0; j < 64; ++j) p.H(i, j) = p.H(j, i) = p.H(i, j) * (i == j ? 900.0F : 30.0F);
  std::vector<index_t> tied(64);
  for (std::size_t j = 0; j < 64; ++j) tied[j] = static_cast<index_t>(j % 16);
  auto const found = search_awq_scales(eigen_backend{}, p.members, with(3), tied);
  for (std::size_t j = 0; j < 64; ++j) CHECK(found.scales[j] == found.scales[j % 16]);
  CHECK(found.error <= found.error_plain);
  CHECK_THROWS_AS(static_cast<void>(search_awq_scales(eigen_backend{}, p.members, with(3), {1, 2})), error);
  quantize_options fine;
  fine.grid = {8, false};
  fine.groups = {group_kind::group, 32};
  fine.scales_stored_as = scale_type::float16;
  auto both = p.members;
  both[1].rounding = &fine;
  auto const mixed = search_awq_scales(eigen_backend{}, both, with(3)), coarse = search_awq_scales(eigen_backend{}, p.members, with(3)),
             first = search_awq_scales(eigen_backend{}, std::vector<awq_member<float>>{both[0]}, with(3));
  CHECK(mixed.error_plain > first.error_plain);
  CHECK(mixed.error_plain < coarse.error_plain);
}

TEST_CASE("power-of-two scales are powers of two") {
  problem const p;
  auto options = with(3);
  options.power_of_two = true;
  auto const found = search_awq_scales(eigen_backend{}, p.members, options);
  CHECK(found.error <= found.error_plain);
  for (float s : found.scales) {
    int exponent = 0;
    CHECK(std::frexp(s, &exponent) == 0.5F);
  }
}

TEST_CASE("any number of threads gives the same bytes") {
  problem const p;
  auto const alone = search_awq_scales(eigen_backend{}, p.members, with(3));
  auto const q = awq(eigen_backend{}, p.gate, as_const(p.H.view()), alone.scales, with(3));
  thread_pool pool(3);
  eigen_backend const backend(pool);
  auto const other = search_awq_scales(backend, p.members, with(3));
  CHECK(other.scales == alone.scales);
  auto const r = awq(backend, p.gate, as_const(p.H.view()), alone.scales, with(3));
  CHECK(std::memcmp(q.words.view().data, r.words.view().data, static_cast<std::size_t>(q.words.view().size()) * 4) == 0);
  CHECK(std::memcmp(q.scales.view().data, r.scales.view().data, static_cast<std::size_t>(q.scales.view().size()) * 4) == 0);
}

TEST_CASE("dead, tiny, huge and missing activations give finite scales that never hurt") {
  problem p;
  for (float factor : {0.0F, 1e-30F, 1e30F}) {
    matrix<float> H = p.H.clone();
    for (index_t i = 0; i < 64; ++i)
      for (index_t j = 0; j < 64; ++j) H(i, j) *= (i == 3 || j == 3 ? 0.0F : factor);
    std::vector<awq_member<float>> const members{{as_const(p.gate.view()), as_const(H.view())}};
    auto const found = search_awq_scales(eigen_backend{}, members, with(4));
    CHECK(found.error <= found.error_plain);
    CHECK(found.scales[3] == 1.0F);
    for (float s : found.scales) {
      CHECK(s >= 1e-4F);
      CHECK(s <= 1e4F);
    }
    auto const q = awq(eigen_backend{}, p.gate, as_const(H.view()), found.scales, with(4));
    for (index_t i = 0; i < 24; ++i)
      for (index_t j = 0; j < 64; ++j) REQUIRE(std::isfinite(q.view()(i, j)));
  }
  p.H(1, 1) = std::numeric_limits<float>::quiet_NaN();
  auto const found = search_awq_scales(eigen_backend{}, p.members, with(4));  // only `up` counts
  for (float s : found.scales) CHECK(std::isfinite(s));
  CHECK(search_awq_scales(eigen_backend{}, std::vector<awq_member<float>>{}, {}).scales.empty());
  p.gate(0, 7) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS((void)search_awq_scales(eigen_backend{}, p.members, with(4)), input_error);
  CHECK_THROWS_AS((void)awq(eigen_backend{}, p.gate, as_const(p.K.view())), input_error);
  CHECK_THROWS_AS((void)awq(eigen_backend{}, p.up, as_const(p.K.view()), {1.0F}), error);
}

}  // namespace slim_quantize_awq_test
