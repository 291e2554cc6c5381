// The batched pruning sweep against slimtrim::column_sweep with the host's choice and the same factor, and in closed form.
#include "cuda/support.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/sparse_sweep.cuh>
#include <slimtrim/slim/sparse/magnitude.hpp>
#include <slimtrim/slim/sparse/sparsegpt.hpp>
#include <doctest/doctest.h>

#include "slim/support.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

namespace cuda_sparse_sweep_test {

using namespace slimtrim;
using slimtrim_test::gram_of;
using slimtrim_test::random_input;
using slimtrim_test::random_weight;

namespace {

struct swept {
  std::vector<std::uint64_t> kept;
  std::vector<float> weights;
  std::vector<std::uint8_t> codes;
  std::vector<double> losses;
};

// Operands of one sweep in host memory, problem after problem.
struct operands {
  index_t problems = 0, rows = 0, columns = 0, groups = 0;
  std::vector<float> moving{}, factors{}, scales{};
  std::vector<std::uint8_t> zeros{};
  std::vector<std::int32_t> group_of{};
  std::vector<std::uint64_t> kept{};  // where a mask is given
};

swept run(cuda_tests::device_memory& device, operands const& is, cuda::sparse_choice const& choice,
          cuda::float_precision precision = cuda::float_precision::single) {
  index_t const all = is.problems * is.rows * is.columns, words = is.problems * is.rows * ceil_div(is.columns, 64);
  auto const upload = [&](auto const& from) { return device.keep(from.data(), static_cast<index_t>(from.size())); };
  bool const rounds = choice.grid.has_value();
  cuda::sparse_batch const batch{
      {is.problems, is.rows, is.columns, is.groups, upload(is.moving), upload(is.factors), rounds ? upload(is.group_of) : nullptr,
       rounds ? upload(is.scales) : nullptr, rounds && !choice.grid->symmetric ? upload(is.zeros) : nullptr,
       rounds ? device.keep<std::uint8_t>(nullptr, all) : nullptr, device.keep<double>(nullptr, is.problems * is.rows)},
      is.kept.empty() ? device.keep<std::uint64_t>(nullptr, words) : upload(is.kept),
      device.keep<float>(nullptr, all)};
  cuda::sparse_sweep(device.backend().on(), batch, choice, precision);
  device.backend().synchronise();
  swept found{device.download(device_vector<std::uint64_t>(batch.kept, words)),
              device.download(device_vector<float>(batch.weights, all)),
              {},
              device.download(device_vector<double>(batch.sweep.losses, is.problems * is.rows))};
  if (rounds) found.codes = device.download(device_vector<std::uint8_t>(batch.sweep.codes, all));
  return found;
}

struct sweep_case {
  index_t problems, columns;
  std::vector<index_t> heights;
  sparsity pattern{};
  std::optional<quantize_options> quantize{};
  bool given = false;
  bool dead = false;  // input 5 has no activity
};

// Masks equal but for `most_different` of the elements: a cost that is nearly another's may change places with it where sums are
// formed in another order. Rows that have the host's mask have the host's weights.
void check_sweep(sweep_case const& is, double most_different, cuda::float_precision precision = cuda::float_precision::single) {
  cuda_tests::device_memory device;
  operands all;
  for (index_t const height : is.heights) all.rows += height;
  index_t const n = all.rows, c = is.columns, words = ceil_div(c, 64);
  all.problems = is.problems;
  all.columns = c;
  quantize_options const by = is.quantize.value_or(quantize_options{});
  if (is.quantize) all.groups = by.groups.groups(c);
  swept expected;
  double largest = 0;
  for (index_t p = 0; p < is.problems; ++p) {
    auto H = gram_of(random_input(2 * c, c, 52 + static_cast<std::uint64_t>(p)));
    if (is.dead)
      for (index_t j = 0; j < c; ++j) H(5, j) = H(j, 5) = 0;
    auto const prepared = prepare_hessian(reference_backend{}, as_const(H.view()), column_order::natural);
    REQUIRE(prepared.usable);
    auto const R = as_const(prepared.factor.view());
    all.factors.insert(all.factors.end(), R.data, R.data + c * c);
    for (index_t j = 0; j < c && is.quantize; ++j)
      all.group_of.push_back(static_cast<std::int32_t>(j / by.groups.block_columns(c)));
    std::vector<float> scales(static_cast<std::size_t>(all.groups * n));
    std::vector<std::uint8_t> zeros(scales.size());
    index_t first = 0;
    for (std::size_t w = 0; w < is.heights.size(); ++w) {
      index_t const height = is.heights[w];
      auto W = random_weight(height, c, 41 + static_cast<std::uint64_t>(p) + 10 * w);
      all.moving.insert(all.moving.end(), W.view().data, W.view().data + height * c);
      mask kept = is.given ? magnitude_mask(reference_backend{}, W, is.pattern) : mask(height, c);
      if (is.given) all.kept.insert(all.kept.end(), kept.view().words, kept.view().words + height * words);
      quantized_matrix rounded;
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(height * c));
      if (is.quantize) {
        rounded = quantized_matrix(height, c, by.grid, by.groups, by.scales_stored_as);
        (void)detail::quantize_rows<float>(nullptr, as_const(W.view()), by, nullptr, false, rounded);
        for (index_t g = 0; g < all.groups; ++g)
          for (index_t i = 0; i < height; ++i) {
            auto const at = static_cast<std::size_t>(g * n + first + i);
            scales[at] = rounded.at(i, g).scale;
            zeros[at] = static_cast<std::uint8_t>(rounded.at(i, g).zero);
          }
      }
      std::vector<double> losses(static_cast<std::size_t>(height));
      detail::pruning_chooser chooser(nullptr, is.pattern, is.given, R, kept, is.quantize ? &rounded : nullptr, codes.data());
      column_sweep(reference_backend{}, W.view(), R, sweep_blocks(c, 128, 0), chooser, vector_view<double>(losses.data(), height));
      expected.kept.insert(expected.kept.end(), kept.view().words, kept.view().words + height * words);
      expected.weights.insert(expected.weights.end(), W.view().data, W.view().data + height * c);
      if (is.quantize) expected.codes.insert(expected.codes.end(), codes.begin(), codes.end());
      expected.losses.insert(expected.losses.end(), losses.begin(), losses.end());
      first += height;
    }
    all.scales.insert(all.scales.end(), scales.begin(), scales.end());
    all.zeros.insert(all.zeros.end(), zeros.begin(), zeros.end());
  }
  for (float const w : expected.weights) largest = std::max(largest, std::fabs(static_cast<double>(w)));
  cuda::sparse_choice choice{{}, {}, is.heights};
  if (!is.given) choice.pattern = is.pattern;
  if (is.quantize) choice.grid = by.grid;
  auto const found = run(device, all, choice, precision);
  CAPTURE(n);
  CAPTURE(c);
  index_t different = 0, same_rows = 0;
  double total = 0, expected_total = 0;
  for (std::size_t r = 0; r < found.losses.size(); ++r) {
    index_t here = 0;
    for (index_t w = 0; w < words; ++w) {
      std::size_t const at = r * static_cast<std::size_t>(words) + static_cast<std::size_t>(w);
      here += std::popcount(found.kept[at] ^ expected.kept[at]);
      REQUIRE((w + 1 < words || c % 64 == 0 || found.kept[at] >> (c % 64) == 0));
    }
    different += here;
    total += found.losses[r];
    expected_total += expected.losses[r];
    double apart = 0;
    for (index_t j = 0; j < c; ++j) {
      std::size_t const at = r * static_cast<std::size_t>(c) + static_cast<std::size_t>(j);
      bool const stays = (found.kept[r * static_cast<std::size_t>(words) + static_cast<std::size_t>(j / 64)] >> (j % 64) & 1U) != 0;
      if (!stays) REQUIRE(found.weights[at] == 0.0F);
      apart = std::max(apart, std::fabs(static_cast<double>(found.weights[at]) - static_cast<double>(expected.weights[at])));
    }
    if (here > 0 || is.quantize || precision != cuda::float_precision::single) continue;
    ++same_rows;
    // A weight is a sum of up to c corrections of the weights' size, each rounded to 2^-24 of the sum.
    CHECK(apart <= static_cast<double>(c) * 0x1p-23 * largest);
  }
  CHECK(static_cast<double>(different) <= most_different * static_cast<double>(found.weights.size()));
  CHECK((is.quantize || precision != cuda::float_precision::single || same_rows > 0));
  CHECK(total == doctest::Approx(expected_total).epsilon(precision == cuda::float_precision::single ? 0.005 : 0.03));
  if (is.quantize) {
    index_t other_codes = 0;
    for (std::size_t i = 0; i < found.codes.size(); ++i) other_codes += found.codes[i] != expected.codes[i];
    CHECK(static_cast<double>(other_codes) <= (most_different + 0.02) * static_cast<double>(found.codes.size()));
  }
  // The same input again: the same bits.
  auto const again = run(device, all, choice, precision);
  CHECK(again.kept == found.kept);
  CHECK(again.weights == found.weights);
  CHECK(again.codes == found.codes);
  CHECK(again.losses == found.losses);
}

sparsity const two_of_four{.keep = 2, .of = 4}, four_of_eight{.keep = 4, .of = 8};

quantize_options four_bits(bool symmetric) {
  return {.grid = {4, symmetric}, .groups = {group_kind::group, 32}};
}

}  // namespace

TEST_CASE("cuda sparse_sweep: N:M, for rows and columns that fill nothing evenly") {
  check_sweep({1, 20, {1}, two_of_four}, 0.002);
  check_sweep({2, 300, {37}, two_of_four}, 0.002);
  check_sweep({1, 150, {130}, four_of_eight}, 0.002);
  check_sweep({1, 135, {10}, {.keep = 1, .of = 4}}, 0.002);  // a last group of three
  check_sweep({1, 140, {10}, {.keep = 5, .of = 8}}, 0.002);  // and of four, all kept
}

TEST_CASE("cuda sparse_sweep: a share of every block over all rows of each matrix of a stack") {
  check_sweep({1, 20, {1}, {.rate = 0.5}}, 0.002);
  check_sweep({2, 300, {37}, {.rate = 0.5}}, 0.002);
  check_sweep({2, 150, {24, 130}, {.rate = 0.7}}, 0.002);
}

TEST_CASE("cuda sparse_sweep: what is kept is rounded in the same sweep") {
  check_sweep({1, 150, {37}, two_of_four, four_bits(true)}, 0.02);
  check_sweep({1, 150, {37}, four_of_eight, four_bits(false)}, 0.02);
  check_sweep({1, 150, {20, 17}, {.rate = 0.5}, four_bits(false)}, 0.02);
  check_sweep({1, 150, {37}, {.rate = 0.5}, four_bits(true), true}, 0);
}

TEST_CASE("cuda sparse_sweep: a mask that is given is the mask") {
  check_sweep({2, 150, {37}, {.rate = 0.5}, {}, true}, 0);
}

TEST_CASE("cuda sparse_sweep: inputs without activity; products on tensor cores") {
  check_sweep({1, 150, {37}, two_of_four, {}, false, true}, 0.002);
  check_sweep({1, 150, {37}, {.rate = 0.5}, {}, false, true}, 0.002);
  check_sweep({1, 300, {37}, two_of_four, {}, false, false}, 0.05, cuda::float_precision::tensor_float);
}

TEST_CASE("cuda sparse_sweep: in closed form") {
  cuda_tests::device_memory device;
  // Without ties between inputs nothing moves: two of four by size, of equal ones the first.
  operands plain{1, 1, 8};
  plain.moving = {3, -1, 2, -4, 1, 1, -1, 1};
  plain.factors.resize(64);
  for (std::size_t j = 0; j < 8; ++j) plain.factors[9 * j] = 1;
  auto const found = run(device, plain, {two_of_four, {}, {}});
  CHECK(found.weights == std::vector<float>{3, 0, 0, -4, 1, 1, 0, 0});
  CHECK(found.kept == std::vector<std::uint64_t>{0b00111001});
  CHECK(found.losses == std::vector<double>{1 + 4 + 1 + 1});
  // One column goes, and the next takes over what it did: e = 1 / 2, w_1 -= e R_01. Costs are (1 / 2)² and 10².
  operands pair{1, 1, 2};
  pair.moving = {1, 10};
  pair.factors = {2, -4, 0, 1};
  auto const moved = run(device, pair, {sparsity{.rate = 0.5}, {}, {}});
  CHECK(moved.weights == std::vector<float>{0, 12});
  CHECK(moved.losses == std::vector<double>{0.25});
}

TEST_CASE("cuda sparse_sweep: nothing to do, and what it does not take") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  CHECK_NOTHROW(cuda::sparse_sweep(on, {}, {two_of_four, {}, {}}));
  CHECK_THROWS_AS(cuda::sparse_sweep(on, {}, {sparsity{.keep = 8, .of = 16}, {}, {}}), error);
  CHECK_THROWS_AS(cuda::sparse_sweep(on, {}, {sparsity{.rate = 2}, {}, {}}), error);
  CHECK_THROWS_AS(cuda::sparse_sweep(on, {}, {two_of_four, uniform_grid{}, {}}), error);
  CHECK_THROWS_AS(cuda::sparse_sweep(on, {}, {two_of_four, {}, {3}}), error);
}

}  // namespace cuda_sparse_sweep_test
