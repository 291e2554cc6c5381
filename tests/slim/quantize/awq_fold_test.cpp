#include <slimtrim/slim/quantize/awq_fold.hpp>

#include <doctest/doctest.h>

#include <slimtrim/core/float16.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <slim/support.hpp>

#include <cmath>
#include <vector>

namespace slim_quantize_awq_fold_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

struct layer {
  std::vector<bfloat16> norm = std::vector<bfloat16>(48);
  matrix<bfloat16> router{8, 48};
  layer() {
    auto const W = random_weight(9, 48, 61);
    for (index_t j = 0; j < 48; ++j) {
      norm[static_cast<std::size_t>(j)] = bfloat16(1.0F + W(8, j));
      for (index_t i = 0; i < 8; ++i) router(i, j) = bfloat16(W(i, j));
    }
  }
  // Router logits of the normalised token x.
  std::vector<double> logits(index_t token) const {
    auto const X = random_input(16, 48, 62);
    std::vector<double> out(8, 0.0);
    for (index_t i = 0; i < 8; ++i)
      for (index_t j = 0; j < 48; ++j)
        out[static_cast<std::size_t>(i)] += static_cast<double>(X(token, j)) * static_cast<double>(static_cast<float>(norm[static_cast<std::size_t>(j)])) *
                                            static_cast<double>(static_cast<float>(router(i, j)));
    return out;
  }
  vector_view<bfloat16> norm_view() { return vector_view<bfloat16>(norm.data(), 48); }
};

std::vector<float> some_scales(bool powers) {
  auto const W = random_weight(1, 48, 63);
  std::vector<float> s(48);
  for (index_t j = 0; j < 48; ++j) {
    double const value = std::exp(30.0 * static_cast<double>(W(0, j)));
    s[static_cast<std::size_t>(j)] = static_cast<float>(powers ? std::exp2(std::nearbyint(std::log2(value))) : value);
  }
  return s;
}

}  // namespace

TEST_CASE("routing survives folding: to the rounding of the storage type, exactly with powers of two") {
  for (bool powers : {false, true}) {
    layer const before;
    layer after;
    auto s = some_scales(powers);
    fold_into_norm(after.norm_view(), s);
    multiply_columns(after.router.view(), s);
    double worst = 0, defect = 0, size = 0;
    layer without_router;
    auto t = some_scales(powers);
    fold_into_norm(without_router.norm_view(), t);
    for (index_t token = 0; token < 16; ++token) {
      auto const a = before.logits(token), b = after.logits(token), c = without_router.logits(token);
      for (std::size_t i = 0; i < 8; ++i) {
        worst = std::max(worst, std::fabs(a[i] - b[i]));
        defect = std::max(defect, std::fabs(a[i] - c[i]));
        size = std::max(size, std::fabs(a[i]));
      }
    }
    // Each of 48 products carries one rounding of the router, 2^-9 relative.
    CHECK(worst <= (powers ? 0.0 : size / 256 * 3));
    CHECK(defect > 0.2 * size);  // the defect that this guards against
  }
}

TEST_CASE("the rounding of the norm goes into the scale") {
  std::vector<float16> norm{float16(1.0F), float16(0.3F), float16(0.0F), float16(6e-8F), float16(6e4F)};
  std::vector<float> s{3.0F, 0.7F, 2.0F, 100.0F, 0.01F};
  auto const before = norm;
  fold_into_norm(vector_view<float16>(norm.data(), 5), s);
  for (std::size_t j = 0; j < 5; ++j) {
    CHECK(std::isfinite(s[j]));
    CHECK(s[j] > 0);
    CHECK(static_cast<float>(norm[j]) * s[j] == doctest::Approx(static_cast<float>(before[j])).epsilon(1e-7));
  }
  CHECK(s[3] == 1.0F);  // would become zero
  CHECK(s[4] == 1.0F);  // would become infinite
}

TEST_CASE("rows of up against columns of down") {
  matrix<float> up = random_weight(6, 10, 64), down = random_weight(5, 6, 65);
  std::vector<float> const s{0.5F, 2.0F, 4.0F, 1.0F, 8.0F, 0.25F};
  auto const before = [&](index_t i, index_t j) {
    float sum = 0;
    for (index_t k = 0; k < 6; ++k) sum += down(i, k) * up(k, j);
    return sum;
  };
  float const kept = before(2, 3);
  divide_rows(up.view(), s);
  multiply_columns(down.view(), s);
  CHECK(before(2, 3) == kept);
  CHECK_THROWS_AS(divide_rows(up.view(), std::vector<float>(5)), error);
  CHECK_THROWS_AS(multiply_columns(up.view(), std::vector<float>(5)), error);
}

}  // namespace slim_quantize_awq_fold_test
