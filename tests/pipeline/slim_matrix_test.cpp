// One matrix through its steps: dense or packed results, sparsity as asked for, errors that name the step.
#include <slimtrim/pipeline/slim_matrix.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/pipeline/layer_moments.hpp>
#include <slimtrim/pipeline/recipe_text.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace pipeline_slim_matrix_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

constexpr index_t rows_count = 24, columns_count = 64;

// Uniform numbers in (-1, 1) that bfloat16 holds.
tensor<float, 2> noise(index_t n, index_t m, std::uint32_t seed) {
  tensor<float, 2> out(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j) {
      seed = seed * 1664525U + 1013904223U;
      out(i, j) = static_cast<float>(bfloat16(static_cast<float>(seed >> 8) / 8388608.0F - 1.0F));
    }
  return out;
}

slimmed_module module_of(std::string const& recipe, dtype storage = dtype::bfloat16) {
  slimmed_module m;
  m.stem = "model.m";
  m.rows = rows_count;
  m.columns = columns_count;
  m.steps = parse_recipe(recipe).steps;
  m.dense = {"model.m.weight", storage, {rows_count, columns_count}};
  for (step const& s : m.steps)
    if (is_quantization(s.method))
      m.scheme = packed_scheme{.bits = s.quantization.bits, .group = s.quantization.group, .zero_points = s.quantization.zero_points};
  return m;
}

// The Hessian of 200 tokens whose entries are correlated.
matrix<float> hessian(index_t tokens = 200) {
  tensor<float, 2> const X = noise(tokens, columns_count, 99);
  matrix<float> H = zero_moments(columns_count);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t i = 0; i < columns_count; ++i)
      for (index_t j = 0; j < columns_count; ++j)
        H(i, j) += (X(t, i) + 2 * X(t, i / 8)) * (X(t, j) + 2 * X(t, j / 8));
  return H;
}
input_moments moments() {
  input_moments m;
  m.hessian = hessian();
  m.tokens = 200;
  return m;
}

// tr(D H Dᵀ) of the change D.
double damage(weight const& now, tensor<float, 2> const& W) {
  tensor<float, 2> const V = expand(now.view);
  matrix<float> const H = hessian();
  double sum = 0;
  for (index_t r = 0; r < W.extent(0); ++r)
    for (index_t i = 0; i < columns_count; ++i)
      for (index_t j = 0; j < columns_count; ++j)
        sum += static_cast<double>(V(r, i) - W(r, i)) * static_cast<double>(H(i, j)) * static_cast<double>(V(r, j) - W(r, j));
  return sum;
}

double zeros(slim_result const& result) {
  tensor<float, 2> const V = expand(slimmed_weight(result).view);
  double count = 0;
  for (index_t i = 0; i < V.extent(0); ++i)
    for (index_t j = 0; j < V.extent(1); ++j) count += V(i, j) == 0 ? 1 : 0;
  return count / static_cast<double>(V.extent(0) * V.extent(1));
}

}  // namespace

TEST_CASE("rtn works where 16-bit weights lie, with the same result") {
  tensor<float, 2> const W = noise(rows_count, columns_count, 1);
  std::vector<bfloat16> stored;
  for (index_t i = 0; i < rows_count; ++i)
    for (index_t j = 0; j < columns_count; ++j) stored.push_back(bfloat16(W(i, j)));
  matrix_view<bfloat16 const> const view(stored.data(), rows_count, columns_count);
  for (std::string const recipe : {"rtn:4g32", "rtn:3g16z", "rtn:8"}) {
    slimmed_module const m = module_of(recipe);
    slim_result const narrow = slim_one(view, m), wide = slim_one(as_const(W.view()), m);
    REQUIRE(narrow.packed);
    REQUIRE(wide.packed);
    CHECK_FALSE(narrow.dense);
    CHECK(std::memcmp(narrow.packed->words.view().data, wide.packed->words.view().data, static_cast<std::size_t>(4 * narrow.packed->words.view().size())) == 0);
    CHECK(slimmed_summary(m, narrow)["bytes"] == narrow.packed->bytes());
    CHECK(slimmed_summary(m, narrow)["method"] == recipe);
  }
}

TEST_CASE("second order beats rounding where it was measured") {
  tensor<float, 2> const W = noise(rows_count, columns_count, 2);
  double const plain = damage(slimmed_weight(slim_one(as_const(W.view()), module_of("rtn:3g32"))), W);
  input_moments m = moments();
  slim_result const gptq = slim_one(as_const(W.view()), module_of("gptq:3g32"), &m);
  CHECK(damage(slimmed_weight(gptq), W) < plain);
  CHECK(gptq.report["tokens"] == 200);
  CHECK(gptq.report["hessian"] == "own");
  CHECK(gptq.report["error"].get<double>() <= gptq.report["error_rtn"].get<double>());
  m = moments();
  slim_result const awq = slim_one(as_const(W.view()), module_of("awq:4g32"), &m);
  CHECK(awq.packed);
  m = moments();
  slim_result const pruned = slim_one(as_const(W.view()), module_of("sparsegpt:50%"), &m);
  m = moments();
  slim_result const masked = slim_one(as_const(W.view()), module_of("wanda:50%"), &m);
  CHECK(damage(slimmed_weight(pruned), W) < damage(slimmed_weight(masked), W));
}

TEST_CASE("the share of zeros is what was asked for") {
  tensor<float, 2> const W = noise(rows_count, columns_count, 3);
  for (std::string const method : {"magnitude", "wanda", "sparsegpt"}) {
    CAPTURE(method);
    input_moments m = moments();
    slim_result const half = slim_one(as_const(W.view()), module_of(method + ":50%"), &m);
    CHECK(zeros(half) == doctest::Approx(0.5).epsilon(1e-3));
    CHECK(half.report["zeros"].get<double>() == doctest::Approx(0.5).epsilon(1e-3));
    m = moments();
    slim_result const pattern = slim_one(as_const(W.view()), module_of(method + ":2:4"), &m);
    REQUIRE(pattern.dense);
    bool kept_two = true;
    for (index_t i = 0; i < rows_count; ++i)
      for (index_t j = 0; j < columns_count; j += 4) {
        int nonzero = 0;
        for (index_t k = 0; k < 4; ++k) nonzero += (*pattern.dense)(i, j + k) != 0 ? 1 : 0;
        kept_two = kept_two && nonzero <= 2;
      }
    CHECK(kept_two);
    // Dense results are values of the storage type.
    for (dtype const storage : {dtype::bfloat16, dtype::float16}) {
      m = moments();
      slim_result const stored = slim_one(as_const(W.view()), module_of(method + ":50%", storage), &m);
      index_t inexact = 0;
      for (index_t i = 0; i < rows_count; ++i)
        for (index_t j = 0; j < columns_count; ++j) {
          float const v = (*stored.dense)(i, j);
          inexact += v != (storage == dtype::float16 ? static_cast<float>(float16(v)) : static_cast<float>(bfloat16(v))) ? 1 : 0;
        }
      CHECK(inexact == 0);
    }
  }
}

TEST_CASE("pruned, then quantised: zeros stay") {
  tensor<float, 2> const W = noise(rows_count, columns_count, 4);
  for (std::string const recipe : {"magnitude:2:4+rtn:4g32", "sparsegpt:2:4+rtn:4g32", "sparsegpt:2:4+gptq:4g32"}) {
    CAPTURE(recipe);
    input_moments m = moments();
    slim_result const result = slim_one(as_const(W.view()), module_of(recipe), &m);
    CHECK(result.packed);
    CHECK(zeros(result) >= 0.5);
    CHECK(zeros(result) < 0.65);
  }
}

TEST_CASE("what was pruned stays pruned under gptq, which makes up for it") {
  tensor<float, 2> const W = noise(rows_count, columns_count, 4);
  for (std::string const first : {"magnitude:2:4", "magnitude:50%", "wanda:2:4", "wanda:50%", "magnitude:50%+awq:4g32s"}) {
    CAPTURE(first);
    input_moments m = moments(), other = moments();
    slim_result const swept = slim_one(as_const(W.view()), module_of(first + "+gptq:4g32"), &m);
    REQUIRE(swept.packed);
    REQUIRE(swept.kept);
    tensor<float, 2> const V = expand(slimmed_weight(swept).view);
    index_t pruned = 0;
    for (index_t i = 0; i < V.extent(0); ++i)
      for (index_t j = 0; j < V.extent(1); ++j) {
        if ((*swept.kept)(i, j)) continue;
        ++pruned;
        REQUIRE(V(i, j) == 0.0F);
      }
    CHECK(pruned == rows_count * columns_count / 2);
    if (first.find("awq") != first.npos) continue;
    // The same mask, rounded without a sweep.
    slim_result const rounded = slim_one(as_const(W.view()), module_of(first + "+rtn:4g32"), &other);
    CHECK(damage(slimmed_weight(swept), W) < 0.8 * damage(slimmed_weight(rounded), W));
  }
}

TEST_CASE("an expert without tokens, or with few, falls back and stays finite") {
  tensor<float, 2> const W = noise(rows_count, columns_count, 5);
  matrix<float> const pooled = hessian();
  for (std::string const recipe : {"gptq:3g32", "awq:4g32", "wanda:50%", "sparsegpt:50%", "sparsegpt:2:4+gptq:4g32"})
    for (index_t const tokens : {index_t{0}, index_t{1}})
      for (bool const with_pool : {false, true}) {
        CAPTURE(recipe);
        CAPTURE(tokens);
        input_moments m;
        m.hessian = hessian(tokens);
        m.tokens = static_cast<double>(tokens);
        if (with_pool) {
          m.pooled = &pooled;
          m.pooled_tokens = 200;
        }
        slim_result const result = slim_one(as_const(W.view()), module_of(recipe), &m);
        tensor<float, 2> const V = expand(slimmed_weight(result).view);
        bool finite = true;
        for (index_t i = 0; i < rows_count; ++i)
          for (index_t j = 0; j < columns_count; ++j) finite = finite && std::isfinite(V(i, j));
        CHECK(finite);
      }
}

TEST_CASE("errors") {
  tensor<float, 2> W = noise(rows_count, columns_count, 6);
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(slim_one(as_const(W.view()), module_of("gptq:3g32"))); }), "gptq: works on calibration tokens"));
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(slim_one(as_const(W.view()), module_of("rtn:4g32+magnitude:50%"))); }), "model.m is packed already by an earlier step"));
  W(3, 4) = std::numeric_limits<float>::quiet_NaN();
  for (std::string const recipe : {"rtn:4g32", "magnitude:50%", "wanda:50%", "sparsegpt:50%", "gptq:4g32", "awq:4g32"}) {
    CAPTURE(recipe);
    input_moments m = moments();
    std::string const found = message_of<input_error>([&] { static_cast<void>(slim_one(as_const(W.view()), module_of(recipe), &m)); });
    CHECK_MESSAGE(has(found, "W[3, 4]: expected a finite value, found NaN"), found);
  }
}

TEST_CASE("tensors as they are written") {
  tensor<float, 2> const W = noise(rows_count, columns_count, 7);
  for (dtype const storage : {dtype::bfloat16, dtype::float16, dtype::float32}) {
    slimmed_module const m = module_of("magnitude:50%", storage);
    slim_result const result = slim_one(as_const(W.view()), m);
    std::string bytes;
    emit_slimmed(nullptr, m, result, [&](std::string const& name, std::span<std::byte const> part) {
      CHECK(name == "model.m.weight");
      bytes.assign(reinterpret_cast<char const*>(part.data()), part.size());
    });
    REQUIRE(bytes.size() == static_cast<std::size_t>(rows_count * columns_count) * dtype_bits(storage) / 8);
    index_t wrong = 0;
    for (index_t i = 0; i < rows_count * columns_count; ++i) {
      float value = 0;
      if (storage == dtype::float32) {
        std::memcpy(&value, bytes.data() + 4 * i, 4);
      } else {
        std::uint16_t raw = 0;
        std::memcpy(&raw, bytes.data() + 2 * i, 2);
        value = storage == dtype::float16 ? static_cast<float>(float16::from_bits(raw)) : static_cast<float>(bfloat16::from_bits(raw));
      }
      wrong += value != (*result.dense)(i / columns_count, i % columns_count) ? 1 : 0;
    }
    CHECK(wrong == 0);
  }
}

}  // namespace pipeline_slim_matrix_test
