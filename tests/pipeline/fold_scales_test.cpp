#include <slimtrim/pipeline/fold_scales.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>

#include <slim/support.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace pipeline_fold_scales_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

quantize_options coarse() {
  quantize_options options;
  options.grid = {3, true};
  options.groups = {group_kind::group, 16};
  return options;
}

tensor<float, 2> rounded(matrix<float> const& from, dtype type) {
  tensor<float, 2> values(from.extent(0), from.extent(1));
  for (index_t i = 0; i < from.extent(0); ++i)
    for (index_t j = 0; j < from.extent(1); ++j) values(i, j) = detail::rounded_to(from(i, j), type);
  return values;
}

// A norm, two matrices to be quantised behind it and a router that is not; inputs with a few loud channels, which is what
// makes scales worth while.
struct group_problem {
  static constexpr index_t in = 48;
  std::vector<float> norm = std::vector<float>(in);
  matrix<float> X = random_input(120, in, 31);
  weight gate = own_weight(rounded(random_weight(20, in, 32), dtype::bfloat16));
  weight up = own_weight(rounded(random_weight(24, in, 33), dtype::bfloat16));
  weight router = own_weight(rounded(random_weight(6, in, 34), dtype::bfloat16));
  matrix<float> hessian;

  explicit group_problem(dtype type = dtype::bfloat16) {
    for (index_t t = 0; t < X.extent(0); ++t)
      for (index_t j = 0; j < in; j += 7) X(t, j) *= 30.0F;
    for (index_t j = 0; j < in; ++j) norm[static_cast<std::size_t>(j)] = detail::rounded_to(0.5F + 0.01F * static_cast<float>(j), type);
    matrix<float> N(X.extent(0), in);
    for (index_t t = 0; t < X.extent(0); ++t)
      for (index_t j = 0; j < in; ++j) N(t, j) = X(t, j) * norm[static_cast<std::size_t>(j)];
    hessian = gram_of(N);
  }
  std::vector<scaled_reader> readers(dtype type = dtype::bfloat16) {
    return {{&gate, coarse(), &hessian, {}}, {&up, coarse(), &hessian, {}}, {&router, {}, nullptr, type}};
  }
  // Output (t, i) of a reader on the normalised token.
  double output(weight const& w, index_t t, index_t i) const {
    tensor<float, 2> const W = expand(w.view);
    double sum = 0;
    for (index_t j = 0; j < in; ++j)
      sum += static_cast<double>(X(t, j)) * static_cast<double>(norm[static_cast<std::size_t>(j)]) * static_cast<double>(W(i, j));
    return sum;
  }
};

}  // namespace

TEST_CASE("everything that reads the norm computes what it did, exactly with powers of two") {
  for (bool powers : {false, true}) {
    CAPTURE(powers);
    group_problem before, after;
    awq_scales const found = fold_norm_scales(eigen_backend{}, after.norm, dtype::bfloat16, after.readers(), {.power_of_two = powers});
    CHECK(found.ratio >= 0);
    CHECK(found.error < found.error_plain);
    CHECK(after.norm != before.norm);
    for (float const n : after.norm) CHECK(detail::rounded_to(n, dtype::bfloat16) == n);
    tensor<float, 2> const R = expand(after.router.view);
    for (index_t i = 0; i < 6; ++i)
      for (index_t j = 0; j < 48; ++j) CHECK(detail::rounded_to(R(i, j), dtype::bfloat16) == R(i, j));
    double defect = 0, size = 0;
    for (index_t t = 0; t < 20; ++t)
      for (index_t i = 0; i < 6; ++i) {
        double const old = before.output(before.router, t, i), now = after.output(after.router, t, i);
        // 48 products, each with one rounding of the router of at most 2^-9.
        double bound = 0;
        tensor<float, 2> const W = expand(before.router.view);
        for (index_t j = 0; j < 48; ++j)
          bound += std::fabs(static_cast<double>(before.X(t, j)) * static_cast<double>(before.norm[static_cast<std::size_t>(j)]) * static_cast<double>(W(i, j)));
        if (powers) CHECK(now == old);
        CHECK(std::fabs(now - old) <= bound / 256);
        size = std::max(size, std::fabs(old));
        defect = std::max(defect, std::fabs(after.output(before.router, t, i) - old));  // the router left as it was
        CHECK(after.output(after.gate, t, i) == doctest::Approx(before.output(before.gate, t, i)).epsilon(1e-4).scale(bound));
      }
    CHECK(defect > 0.1 * size);
  }
}

TEST_CASE("nothing to gain: nothing is touched") {
  group_problem p;
  p.hessian.fill(0.0F);
  auto const before = p.norm;
  void const* const view = p.router.storage.get();
  CHECK(fold_norm_scales(eigen_backend{}, p.norm, dtype::bfloat16, p.readers()).ratio < 0);
  CHECK(p.norm == before);
  CHECK(p.router.storage.get() == view);
}

TEST_CASE("a channel that a storage type cannot scale keeps its scale") {
  // float16: weights near the top of the range in one channel, near the bottom in another.
  for (bool powers : {false, true}) {
    group_problem p(dtype::float16);
    tensor<float, 2> R = expand(p.router.view);
    for (index_t i = 0; i < 6; ++i)
      for (index_t j = 0; j < 48; ++j) R(i, j) = detail::rounded_to(j == 3 ? 6e4F : (j == 5 ? 6e-8F : R(i, j)), dtype::float16);
    p.router = own_weight(R.clone());
    awq_scales const found = fold_norm_scales(eigen_backend{}, p.norm, dtype::float16, p.readers(dtype::float16), {.power_of_two = powers});
    CHECK(found.ratio >= 0);
    tensor<float, 2> const S = expand(p.router.view);
    for (index_t i = 0; i < 6; ++i)
      for (index_t j = 0; j < 48; ++j) {
        CHECK(std::isfinite(S(i, j)));
        if (powers) CHECK(static_cast<double>(S(i, j)) == static_cast<double>(R(i, j)) * static_cast<double>(found.scales[static_cast<std::size_t>(j)]));
      }
  }
}

TEST_CASE("rows of the producer against columns of the reader, heads that share a row share the scale") {
  index_t const tokens = 90, in = 12, rows_of = 16, columns_of = 32, out = 10;
  // Channels j and j + 16 of the reader both come from row j, as two query heads on one value head.
  std::vector<index_t> row_of;
  for (index_t j = 0; j < columns_of; ++j) row_of.push_back(j % rows_of);
  matrix<float> V = random_weight(rows_of, in, 42);
  for (index_t j = 0; j < in; ++j) V(5, j) *= 40.0F;
  for (bool stays : {false, true}) {
    weight value = own_weight(rounded(V, dtype::bfloat16)), output = own_weight(rounded(random_weight(out, columns_of, 43), dtype::bfloat16));
    tensor<float, 2> const value_before = expand(value.view), output_before = expand(output.view);
    // Any Hessian will do for what is checked here: loud channels make scales worth while.
    matrix<float> Z = random_input(tokens, columns_of, 41);
    for (index_t t = 0; t < tokens; ++t)
      for (index_t j = 0; j < columns_of; j += 5) Z(t, j) *= 30.0F;
    matrix<float> const hessian = gram_of(Z);
    awq_scales const found = fold_row_scales(eigen_backend{}, value, stays ? std::optional<dtype>(dtype::bfloat16) : std::nullopt, row_of,
                                             {&output, coarse(), &hessian, {}}, {.power_of_two = stays});
    REQUIRE(found.ratio >= 0);
    tensor<float, 2> const value_after = expand(value.view), output_after = expand(output.view);
    for (index_t j = 0; j < rows_of; ++j) CHECK(found.scales[static_cast<std::size_t>(j)] == found.scales[static_cast<std::size_t>(j + rows_of)]);
    // Every path from an input to an output carries what it did.
    for (index_t i = 0; i < out; ++i)
      for (index_t j = 0; j < columns_of; ++j)
        for (index_t k = 0; k < in; ++k) {
          index_t const r = row_of[static_cast<std::size_t>(j)];
          double const old = static_cast<double>(output_before(i, j)) * static_cast<double>(value_before(r, k));
          double const now = static_cast<double>(output_after(i, j)) * static_cast<double>(value_after(r, k));
          if (stays) CHECK(now == old);
          else CHECK(now == doctest::Approx(old).epsilon(1e-6));
        }
  }
}

}  // namespace pipeline_fold_scales_test
