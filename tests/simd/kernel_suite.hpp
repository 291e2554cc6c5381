// Random weights and activations, and what every set of kernels must make of them. Shared by the tests that run the
// compiler's own kernels and the emulated ones.
#pragma once

#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/simd/gemm.hpp>
#include <slimtrim/simd/gemv.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace simd_suite {

using namespace slimtrim;

struct random_source {
  std::uint64_t seed;
  std::uint64_t next = 0;
  index_t below(index_t n) {
    return static_cast<index_t>(random_bits_at(seed, 0, next++) % static_cast<std::uint64_t>(n));
  }
  index_t between(index_t low, index_t high) { return low + below(high - low + 1); }
  bool coin() { return below(2) == 0; }
  float uniform() { return static_cast<float>(uniform_at(seed, 1, next++) * 2 - 1); }
};

// One of the sizes that numbers come in: ordinary ones mostly, but subnormal floats too.
inline float random_size(random_source& random) { return random.below(8) == 0 ? 1e-39F : 1.0F; }

// A quantised weight with memory of its own; words are surrounded so that reading past a row's end shows under ASan.
struct random_codes {
  std::vector<std::uint32_t> words;
  std::vector<float> scales;
  std::vector<std::uint8_t> zeros;
  quantized_view<> view;

  random_codes(random_source& random, index_t rows, index_t columns, int bits, float scale_size = 1.0F) {
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
    float const size = 0.1F * scale_size;
    index_t const storage = random.below(3);
    for (auto& scale : scales) {
      scale = random.below(20) == 0 ? 0.0F : random.uniform() * size;
      if (storage == 1) scale = static_cast<float>(bfloat16(scale));
      if (storage == 2) scale = static_cast<float>(float16(scale));
    }
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

/// `cases` weights of random shape and stride, `shapes` products of them.
struct totals {
  double error = 0, norm = 1e-300;
  index_t shapes = 0, cases = 0;
};

// Checks Y against double sums; every element within the rounding of a float sum of `in` terms, each of which may also
// lose half of the smallest subnormal.
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
      double const allowed =
          size * (static_cast<double>(in + 16) * 0x1p-24 + extra_relative) + static_cast<double>(in + 16) * 0x1p-149;
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
  index_t const tokens = random.coin() ? random.between(1, 4) : random.between(0, random.below(8) == 0 ? 70 : 19);
  int const kind = static_cast<int>(random.below(6));
  int const bits = static_cast<int>(kind < 2 ? 4 : random.between(1, 8));
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(tokens);
  CAPTURE(kind);
  CAPTURE(bits);
  random_codes const codes(random, rows, columns, bits, random_size(random));
  spaced_matrix<bfloat16> brain(random, rows, columns, false);
  spaced_matrix<float16> half(random, rows, columns, false);
  spaced_matrix<float> full(random, rows, columns, false);
  spaced_matrix<float> input(random, tokens, columns, false), output(random, tokens, rows, false);
  bool const codes_case = kind < 3;
  weight_view w = codes.view;
  float const weight_size = random_size(random), input_size = random_size(random);
  for (index_t i = 0; !codes_case && i < rows; ++i)
    for (index_t j = 0; j < columns; ++j) {
      float const value = random.uniform() * weight_size;
      brain.view(i, j) = bfloat16(value), half.view(i, j) = float16(random.below(9) == 0 ? value * 1e-6F : value);
      full.view(i, j) = value;
    }
  if (kind == 3) w = as_const(brain.view);
  if (kind == 4) w = as_const(half.view);
  if (kind == 5) w = as_const(full.view);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t k = 0; k < columns; ++k) input.view(t, k) = random.uniform() * input_size;
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
        equal =
            equal && bits_as<std::uint32_t>(panel[static_cast<std::size_t>(k * kernels.lanes + r % kernels.lanes)]) ==
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
  check(
      [&](executor* on) {
        if (tokens > 0) simd::gemm_exact(kernels, on, prepared, X, output.view);
      },
      0);
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
    // Within the documented bound: every activation is off by at most its block's largest over 254, and a block of
    // tiny ones counts as zero. Streamed past the tokens or tile by tile.
    auto within_bound = [&](auto&& run) {
      output.values = untouched;
      run(static_cast<executor*>(nullptr));
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
            bound += largest * weights * (largest < 0x1p-100 ? 1.0 : 1.0 / 254 + 1e-6);
          }
          bound += static_cast<double>(columns + 16) * 0x1p-149;
          worst = std::max(worst, std::fabs(sum - static_cast<double>(output.view(t, o))) / bound);
        }
      CHECK(worst <= 1.0);
      auto const serial = output.values;
      output.values = untouched;
      run(static_cast<executor*>(&pool));
      CHECK(same_bits(serial, output.values));
      ++exact.shapes;
    };
    within_bound([&](executor* on) { simd::gemv(kernels, on, prepared, activation_kind::int8, X, output.view); });
    within_bound([&](executor* on) {
      if (tokens == 0) return;
      simd::rounded_activations const rounded(kernels, X, converted->view, on);
      simd::panel_product const product{prepared, output.view};
      simd::gemm_int8(kernels, on, std::span(&product, 1), rounded);
    });
  }
}

// The sums of a cosine of two random rows against double sums.
template <class T>
void one_cosine(simd::kernel_table const& kernels, random_source& random) {
  index_t const columns = random.below(20) == 0 ? random.between(4000, 9000) : random.between(0, 300);
  spaced_matrix<T> rows(random, 2, columns, true);
  double expected[3] = {}, found[3], size[3] = {};
  for (index_t k = 0; k < columns; ++k) {
    rows.view(0, k) = T(random.uniform()), rows.view(1, k) = T(random.uniform());
    double const x = static_cast<double>(static_cast<float>(rows.view(0, k)));
    double const y = static_cast<double>(static_cast<float>(rows.view(1, k)));
    double const terms[3] = {x * y, x * x, y * y};
    for (int i = 0; i < 3; ++i) expected[i] += terms[i], size[i] += std::fabs(terms[i]);
  }
  kernels.cosine_sums(simd::detail::kind_of_dense<T>, &rows.view.data[0], rows.view.data + rows.view.stride(0), columns,
                      found);
  // Floats within 4096 columns, spread over at least two sums.
  double const relative = static_cast<double>(std::min<index_t>(columns, 4096) / 2 + 16) * 0x1p-24;
  for (int i = 0; i < 3; ++i) CHECK(std::fabs(found[i] - expected[i]) <= size[i] * relative);
}

// Largest magnitudes and codes of a random row against one element after another.
template <class T>
void one_encoding(simd::kernel_table const& kernels, random_source& random) {
  index_t const columns = 32 * random.between(1, 9), group = 32 * random.between(1, 4),
                groups = ceil_div(columns, group);
  spaced_matrix<T> row(random, 1, columns, true);
  for (index_t k = 0; k < columns; ++k)
    row.view(0, k) = T(random.coin() ? random.uniform() : static_cast<float>(random.between(-9, 9)) * 0.125F);
  std::vector<std::uint32_t> largest(static_cast<std::size_t>(groups)), words(static_cast<std::size_t>(columns / 8));
  std::vector<float> scales(largest.size());
  // By the inverse and, at the far ends of the range, by division.
  float const size = random.coin() ? 1.0F : std::ldexp(1.0F, static_cast<int>(random.between(-115, 115)));
  if constexpr (!std::is_same_v<T, float16>)
    for (index_t k = 0; k < columns; ++k) row.view(0, k) = T(static_cast<float>(row.view(0, k)) * size);
  for (auto& scale : scales)
    scale = (random.coin() ? 0.125F : 0.05F + random.uniform() * 0.04F) * (std::is_same_v<T, float16> ? 1.0F : size);
  kernels.group_magnitudes(simd::detail::kind_of_dense<T>, row.view.data, columns, group, largest.data());
  kernels.encode4(simd::detail::kind_of_dense<T>, row.view.data, columns, group, scales.data(), words.data());
  bool equal = true;
  for (index_t g = 0; g < groups; ++g) {
    float most = 0;
    for (index_t k = g * group; k < std::min(columns, (g + 1) * group); ++k) {
      float const w = static_cast<float>(row.view(0, k)), scale = scales[static_cast<std::size_t>(g)];
      most = std::max(most, std::fabs(w));
      auto const code = static_cast<std::uint32_t>(std::nearbyint(std::clamp(w / scale, -8.0F, 7.0F)) + 8);
      equal = equal && (words[static_cast<std::size_t>(k / 8)] >> (k % 8 * 4) & 15U) == code;
    }
    equal = equal && largest[static_cast<std::size_t>(g)] == bits_as<std::uint32_t>(most);
  }
  CHECK(equal);
}

// N of every M weights of a random row, most of whose scores occur more than once, against sorted groups.
template <class T>
void one_selection(simd::kernel_table const& kernels, random_source& random) {
  index_t const columns = 64 * random.between(1, 5), group = random.coin() ? 4 : 8, keep = random.between(0, group);
  if (group > kernels.most_of_group) return;
  spaced_matrix<T> row(random, 1, columns, true);
  std::vector<float> norms(static_cast<std::size_t>(columns));
  for (index_t k = 0; k < columns; ++k) {
    row.view(0, k) = T(random.coin() ? random.uniform() : static_cast<float>(random.between(-2, 2)));
    norms[static_cast<std::size_t>(k)] = random.coin() ? 1.0F : static_cast<float>(random.between(0, 4)) * 0.25F;
  }
  std::vector<std::uint64_t> bits(static_cast<std::size_t>(columns / 64), 0x5555555555555555U);
  std::uint32_t const largest = kernels.keep_in_groups(simd::detail::kind_of_dense<T>, row.view.data, norms.data(), columns,
                                                       group, keep, bits.data());
  bool equal = true;
  float most = 0;
  for (index_t first = 0; first < columns; first += group) {
    std::vector<std::pair<float, index_t>> order;
    for (index_t k = first; k < first + group; ++k) {
      float const w = std::fabs(static_cast<float>(row.view(0, k)));
      order.emplace_back(-w * norms[static_cast<std::size_t>(k)], k);
      most = std::max(most, w);
    }
    std::stable_sort(order.begin(), order.end(), [](auto const& a, auto const& b) { return a.first < b.first; });
    for (index_t i = 0; i < group; ++i) {
      index_t const k = order[static_cast<std::size_t>(i)].second;
      equal = equal && (bits[static_cast<std::size_t>(k / 64)] >> (k % 64) & 1U) == (i < keep ? 1U : 0U);
    }
  }
  CHECK(equal);
  CHECK(largest == bits_as<std::uint32_t>(most));
}

// Attention of a few queries over one head in each storage, against double sums.
inline void one_head(simd::kernel_table const& kernels, random_source& random) {
  constexpr index_t side = simd::key_positions;
  index_t const dim = side * random.between(1, random.coin() ? 4 : 9), rows = random.between(1, 90);
  index_t const queries = random.between(1, 9), blocks = ceil_div(rows, side);
  index_t const key_stride = dim * side + random.below(3), value_stride = dim + random.below(3);
  std::size_t const key_count = static_cast<std::size_t>(blocks * key_stride);
  std::size_t const value_count = static_cast<std::size_t>(rows * value_stride);
  // Positions that are not there hold NaN.
  std::vector<float> keys(key_count, std::nanf("")), values(value_count);
  std::vector<float16> half_keys(key_count, float16(std::nanf(""))), half_values(value_count);
  std::vector<std::int8_t> byte_keys(key_count), byte_values(value_count);
  std::vector<float> key_scales(static_cast<std::size_t>(blocks * (side + 1)), std::nanf(""));
  std::vector<float> value_scales(static_cast<std::size_t>(2 * rows));
  auto key_at = [&](index_t j, index_t d) {
    return static_cast<std::size_t>(j / side * key_stride + d * side + j % side);
  };
  float const size = random.below(3) == 0 ? 4.0F : 1.0F;
  for (index_t j = 0; j < rows; ++j) {
    key_scales[static_cast<std::size_t>(j / side * (side + 1) + j % side)] = random.uniform() * 0.03F;
    value_scales[static_cast<std::size_t>(2 * j)] = random.uniform() * 0.03F;
    for (index_t d = 0; d < dim; ++d) {
      auto const k = key_at(j, d), v = static_cast<std::size_t>(j * value_stride + d);
      keys[k] = random.uniform() * size, values[v] = random.uniform();
      half_keys[k] = float16(keys[k]), half_values[v] = float16(values[v]);
      byte_keys[k] = static_cast<std::int8_t>(random.between(-127, 127));
      byte_values[v] = static_cast<std::int8_t>(random.between(-127, 127));
    }
  }
  std::vector<float> q(static_cast<std::size_t>(queries * (dim + 1)));
  for (auto& each : q) each = random.uniform();
  for (index_t const bits : {32, 16, 8}) {
    simd::key_value_head head;
    head.bits = bits, head.rows = rows, head.dim = dim;
    head.key_stride = key_stride, head.value_stride = value_stride;
    head.keys = keys.data(), head.values = values.data();
    if (bits == 16) head.keys = half_keys.data(), head.values = half_values.data();
    if (bits == 8) {
      head.keys = byte_keys.data(), head.values = byte_values.data();
      head.key_scales = key_scales.data(), head.value_scales = value_scales.data();
      head.key_scale_stride = side + 1, head.value_scale_stride = 2;
    }
    auto key = [&](index_t j, index_t d) {
      auto const k = key_at(j, d);
      if (bits == 32) return static_cast<double>(keys[k]);
      if (bits == 16) return static_cast<double>(static_cast<float>(half_keys[k]));
      return static_cast<double>(byte_keys[k]) *
             static_cast<double>(key_scales[static_cast<std::size_t>(j / side * (side + 1) + j % side)]);
    };
    auto value = [&](index_t j, index_t d) {
      auto const v = static_cast<std::size_t>(j * value_stride + d);
      if (bits == 32) return static_cast<double>(values[v]);
      if (bits == 16) return static_cast<double>(static_cast<float>(half_values[v]));
      return static_cast<double>(byte_values[v]) * static_cast<double>(value_scales[static_cast<std::size_t>(2 * j)]);
    };
    std::vector<float> scores(static_cast<std::size_t>(4 * blocks * side));
    std::vector<float> z(static_cast<std::size_t>(queries * (dim + 2)), 7.0F);
    kernels.attend(head, q.data(), dim + 1, queries, 0.25F, scores.data(), z.data(), dim + 2);
    double worst = 0, largest_score = 0;
    bool untouched = true;
    for (index_t i = 0; i < queries; ++i) {
      std::vector<double> p(static_cast<std::size_t>(rows), 0.0);
      double most = -1e300, sum = 0;
      for (index_t j = 0; j < rows; ++j) {
        double reach = 0;
        for (index_t d = 0; d < dim; ++d) {
          double const term = 0.25 * static_cast<double>(q[static_cast<std::size_t>(i * (dim + 1) + d)]) * key(j, d);
          p[static_cast<std::size_t>(j)] += term;
          reach += std::fabs(term);
        }
        largest_score = std::max(largest_score, reach);
        most = std::max(most, p[static_cast<std::size_t>(j)]);
      }
      for (auto& each : p) sum += each = std::exp(each - most);
      for (index_t d = 0; d < dim; ++d) {
        double expected = 0;
        for (index_t j = 0; j < rows; ++j) expected += p[static_cast<std::size_t>(j)] / sum * value(j, d);
        worst =
            std::max(worst, std::fabs(expected - static_cast<double>(z[static_cast<std::size_t>(i * (dim + 2) + d)])));
      }
      untouched = untouched && z[static_cast<std::size_t>(i * (dim + 2) + dim)] == 7.0F;
    }
    CHECK(untouched);
    // A score is off by dim + 2 roundings of its terms at most, its weight by as much of itself and 3e-7 for exp;
    // values are at most 4, and their sum has rows roundings.
    double const score_error = largest_score * static_cast<double>(dim + 2) * 0x1p-24;
    CHECK(worst <= 4.0 * (2 * score_error + 6e-7 + static_cast<double>(rows + 4) * 0x1p-24));
  }
}

inline totals run_cases(simd::kernel_table const& kernels, std::uint64_t seed, int count) {
  // Seven threads are often more than there are pieces, and more than there are rows.
  thread_pool two(2), seven(7);
  random_source random{seed};
  totals exact;
  for (; exact.cases < count; ++exact.cases) {
    one_case(kernels, exact.cases % 4 != 0 ? static_cast<executor&>(two) : seven, random, exact);
    if (exact.cases % 3 == 0) one_cosine<float>(kernels, random);
    if (exact.cases % 3 == 1) one_cosine<bfloat16>(kernels, random);
    if (exact.cases % 3 == 2) one_cosine<float16>(kernels, random);
    if (exact.cases % 8 == 0) one_head(kernels, random);
    if (exact.cases % 8 == 1) one_encoding<float>(kernels, random);
    if (exact.cases % 8 == 2) one_encoding<bfloat16>(kernels, random);
    if (exact.cases % 8 == 3) one_encoding<float16>(kernels, random);
    if (exact.cases % 8 == 4) one_selection<float>(kernels, random);
    if (exact.cases % 8 == 5) one_selection<bfloat16>(kernels, random);
    if (exact.cases % 8 == 6) one_selection<float16>(kernels, random);
  }
  CHECK(exact.error <= 1e-10 * exact.norm);
  return exact;
}

}  // namespace simd_suite
