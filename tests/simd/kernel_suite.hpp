// Random weights and activations, and what every set of kernels must make of them. Shared by the tests that run the
// compiler's own kernels and the emulated ones.
#pragma once

#include <doctest/doctest.h>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/simd/gemm.hpp>
#include <slimtrim/simd/gemv.hpp>

#include <cmath>
#include <cstring>
#include <vector>

namespace simd_suite {

using namespace slimtrim;

struct random_source {
  std::uint64_t seed;
  std::uint64_t next = 0;
  index_t below(index_t n) { return static_cast<index_t>(random_bits_at(seed, 0, next++) % static_cast<std::uint64_t>(n)); }
  index_t between(index_t low, index_t high) { return low + below(high - low + 1); }
  bool coin() { return below(2) == 0; }
  float uniform() { return static_cast<float>(uniform_at(seed, 1, next++) * 2 - 1); }
};

// A quantised weight with memory of its own; words are surrounded so that reading past a row's end shows under ASan.
struct random_codes {
  std::vector<std::uint32_t> words;
  std::vector<float> scales;
  std::vector<std::uint8_t> zeros;
  quantized_view<> view;

  random_codes(random_source& random, index_t rows, index_t columns, int bits) {
    view.rows = rows, view.columns = columns, view.bits = bits;
    view.words_per_row = packed_words(columns, bits) + random.below(2);
    view.block_rows = random.below(4) == 0 ? random.between(1, 5) : 1;
    index_t const group[] = {32, 64, 96, 128, columns, columns + 7};
    view.block_columns = group[random.below(6)];
    // A group that is not whole blocks must be the only one.
    index_t const groups = ceil_div(columns, view.block_columns), block_rows = ceil_div(rows, view.block_rows);
    words.resize(static_cast<std::size_t>(rows * view.words_per_row));
    for (auto& word : words) word = static_cast<std::uint32_t>(random_bits_at(random.seed, 2, random.next++));
    scales.resize(static_cast<std::size_t>(block_rows * groups));
    for (auto& scale : scales) scale = random.below(20) == 0 ? 0.0F : random.uniform() * 0.1F;
    view.words = words.data();
    view.scales = tensor_view<float const, 2>(scales.data(), block_rows, groups);
    if (random.coin()) {
      zeros.resize(scales.size());
      for (auto& zero : zeros) zero = static_cast<std::uint8_t>(random.below(index_t{1} << bits));
      view.zeros = tensor_view<std::uint8_t const, 2>(zeros.data(), block_rows, groups);
    }
  }
};

// A matrix whose rows, and perhaps columns, are further apart than need be.
template <class T>
struct spaced_matrix {
  std::vector<T> values;
  matrix_view<T> view;
  spaced_matrix(random_source& random, index_t rows, index_t columns, bool contiguous_rows) {
    index_t const step = contiguous_rows || random.coin() ? 1 : random.between(2, 3);
    index_t const row = columns * step + random.below(4);
    values.resize(static_cast<std::size_t>(rows * row + 1));
    index_t const sizes[2] = {rows, columns}, steps[2] = {row, step};
    // An odd start, so that nothing is aligned by luck.
    view = matrix_view<T>(values.data() + 1, sizes, steps);
    if (row * rows == 0) view.data = values.data();
  }
};

struct totals {
  double error = 0, norm = 1e-300;
  index_t shapes = 0;
};

// Checks Y against double sums; every element within the rounding of a float sum of `in` terms.
inline void compare(matrix_view<float const> X, tensor<float, 2> const& dense, matrix_view<float const> Y,
                    quantized_view<> const* codes, double extra_relative, totals& all) {
  index_t const in = X.extent(1);
  double worst = 0;
  for (index_t t = 0; t < Y.extent(0); ++t)
    for (index_t o = 0; o < Y.extent(1); ++o) {
      double sum = 0, size = 0;
      for (index_t k = 0; k < in; ++k) {
        double const x = static_cast<double>(X(t, k)), w = static_cast<double>(dense(o, k));
        sum += x * w;
        double reach = std::fabs(w);
        // Codes and zero points are added up apart.
        if (codes != nullptr)
          reach = std::fabs(static_cast<double>(codes->scales(o / codes->block_rows, codes->group_of(k)))) *
                  (codes->code(o, k) + static_cast<double>(codes->zero(o, k)));
        size += std::fabs(x) * reach;
      }
      double const off = std::fabs(sum - static_cast<double>(Y(t, o)));
      double const allowed = size * (static_cast<double>(in + 16) * 0x1p-24 + extra_relative) + 1e-44;
      worst = std::max(worst, off / allowed);
      all.error += off * off;
      all.norm += sum * sum;
    }
  CHECK(worst <= 1.0);
  ++all.shapes;
}

inline bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// One random weight through every path of `kernels`; what it may differ from double sums is in `compare`.
inline void one_case(simd::kernel_table const& kernels, executor& pool, random_source& random, totals& exact) {
  index_t const rows = random.between(1, 45), columns = random.between(1, random.coin() ? 60 : 330);
  index_t const tokens = random.coin() ? random.between(1, 4) : random.between(0, 19);
  int const kind = static_cast<int>(random.below(6));
  int const bits = static_cast<int>(kind < 2 ? 4 : random.between(1, 8));
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(tokens);
  CAPTURE(kind);
  CAPTURE(bits);
  random_codes const codes(random, rows, columns, bits);
  spaced_matrix<bfloat16> brain(random, rows, columns, false);
  spaced_matrix<float16> half(random, rows, columns, false);
  spaced_matrix<float> full(random, rows, columns, false);
  spaced_matrix<float> input(random, tokens, columns, false), output(random, tokens, rows, false);
  bool const codes_case = kind < 3;
  weight_view w = codes.view;
  for (index_t i = 0; !codes_case && i < rows; ++i)
    for (index_t j = 0; j < columns; ++j) {
      float const value = random.uniform();
      brain.view(i, j) = bfloat16(value), half.view(i, j) = float16(random.below(9) == 0 ? value * 1e-6F : value);
      full.view(i, j) = value;
    }
  if (kind == 3) w = as_const(brain.view);
  if (kind == 4) w = as_const(half.view);
  if (kind == 5) w = as_const(full.view);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t k = 0; k < columns; ++k) input.view(t, k) = random.uniform();
  auto const X = as_const(input.view);
  auto const dense = expand(w);

  simd::weight_arena arena;
  auto const converted = simd::interleave(w, kernels.lanes, arena, &pool);
  REQUIRE(converted.has_value());
  std::vector<float> row(static_cast<std::size_t>(columns));
  bool equal = true;
  for (index_t r = 0; r < rows; ++r) {
    simd::expand_row(converted->view, r, row.data());
    equal = equal && std::memcmp(row.data(), &dense(r, 0), row.size() * sizeof(float)) == 0;
  }
  index_t const padded = converted->view.blocks * simd::block_columns;
  std::vector<float> panel(static_cast<std::size_t>(padded * kernels.lanes));
  for (index_t p = 0; p < converted->view.panels(); ++p) {
    kernels.expand(converted->view, p, 0, converted->view.blocks, panel.data(), kernels.lanes);
    for (index_t r = p * kernels.lanes; r < std::min(rows, (p + 1) * kernels.lanes); ++r)
      for (index_t k = 0; k < columns; ++k)
        equal = equal && bits_as<std::uint32_t>(panel[static_cast<std::size_t>(k * kernels.lanes + r % kernels.lanes)]) ==
                             bits_as<std::uint32_t>(dense(r, k));
  }
  CHECK(equal);  // dequantised bit for bit, by the accessor and by the kernel

  auto const untouched = output.values;
  quantized_view<> const* const as_codes = codes_case ? &codes.view : nullptr;
  auto check = [&](auto&& run, double extra) {
    output.values = untouched;
    run(static_cast<executor*>(nullptr));
    compare(X, dense, as_const(output.view), as_codes, extra, exact);
    auto const serial = output.values;
    output.values = untouched;
    run(static_cast<executor*>(&pool));
    CHECK(same_bits(serial, output.values));
  };
  simd::panel_source const prepared{converted->view, nullptr};
  check([&](executor* on) { simd::gemv(kernels, on, prepared, activation_kind::floating, X, output.view); }, 0);
  check([&](executor* on) { if (tokens > 0) simd::gemm_exact(kernels, on, prepared, X, output.view); }, 0);
  if (auto const plan = simd::plan_panels(w, kernels.lanes)) {
    simd::panel_source const made{*plan, &w};
    output.values = untouched;
    simd::gemv(kernels, nullptr, prepared, activation_kind::floating, X, output.view);
    auto const expected = output.values;
    simd::gemv(kernels, nullptr, made, activation_kind::floating, X, output.view);
    CHECK(same_bits(expected, output.values));
  }
  if (!codes_case) {
    auto run = [&](auto const& view) {
      if (view.stride(1) == 1)
        check([&](executor* on) { simd::gemv_dense(kernels, on, as_const(view), X, output.view); }, 0);
    };
    if (kind == 3) run(brain.view);
    if (kind == 4) run(half.view);
    if (kind == 5) run(full.view);
  } else {
    // Within the documented bound: every activation is off by at most its block's largest over 254.
    output.values = untouched;
    simd::gemv(kernels, nullptr, prepared, activation_kind::int8, X, output.view);
    double worst = 0;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t o = 0; o < rows; ++o) {
        double sum = 0, bound = 0;
        for (index_t first = 0; first < columns; first += simd::block_columns) {
          double largest = 0, weights = 0;
          for (index_t k = first; k < std::min(columns, first + simd::block_columns); ++k) {
            sum += static_cast<double>(X(t, k)) * static_cast<double>(dense(o, k));
            largest = std::max(largest, std::fabs(static_cast<double>(X(t, k))));
            weights += std::fabs(static_cast<double>(dense(o, k)));
          }
          bound += largest * weights * (1.0 / 254 + 1e-6);
        }
        worst = std::max(worst, std::fabs(sum - static_cast<double>(output.view(t, o))) / (bound + 1e-30));
      }
    CHECK(worst <= 1.0);
    auto const serial = output.values;
    output.values = untouched;
    simd::gemv(kernels, &pool, prepared, activation_kind::int8, X, output.view);
    CHECK(same_bits(serial, output.values));
    ++exact.shapes;
  }
}

inline totals run_cases(simd::kernel_table const& kernels, std::uint64_t seed, int count) {
  thread_pool two(2), three(3);
  random_source random{seed};
  totals exact;
  for (int i = 0; i < count; ++i) one_case(kernels, i % 2 == 0 ? static_cast<executor&>(two) : three, random, exact);
  CHECK(exact.error <= 1e-10 * exact.norm);
  return exact;
}

}  // namespace simd_suite
