// The batched sweep against slimtrim::column_sweep with the same factor, order and scales, problem by problem.
#include "cuda/support.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/column_sweep.cuh>
#include <slimtrim/slim/quantize/gptq.hpp>
#include <doctest/doctest.h>

#include "slim/support.hpp"

#include <vector>

namespace cuda_column_sweep_test {

using namespace slimtrim;
using slimtrim_test::gram_of;
using slimtrim_test::random_input;
using slimtrim_test::random_weight;

namespace {

struct sweep_case {
  index_t problems, rows, columns, group;
  bool symmetric = true;
  column_order order = column_order::activation;
};

void check_sweep(sweep_case const& is, cuda::float_precision precision, double most_different,
                 double loss_apart = 0.01) {
  cuda_tests::device_memory device;
  index_t const n = is.rows, c = is.columns, groups = ceil_div(c, is.group);
  quantize_options options;
  options.grid.symmetric = is.symmetric;
  options.groups.size = is.group;
  std::vector<float> moving, factors, scales;
  std::vector<std::uint8_t> zeros;
  std::vector<std::int32_t> group_of;
  std::vector<std::uint8_t> expected;  // [problems, rows, columns], sweep order
  std::vector<double> expected_losses;
  for (index_t p = 0; p < is.problems; ++p) {
    auto const W = random_weight(n, c, 41 + static_cast<std::uint64_t>(p));
    auto const H = gram_of(random_input(2 * c, c, 52 + static_cast<std::uint64_t>(p)));
    auto const prepared = prepare_hessian(reference_backend{}, as_const(H.view()), is.order);
    REQUIRE(prepared.usable);
    quantized_matrix scaled(n, c, options.grid, options.groups, options.scales_stored_as);
    (void)slimtrim::detail::quantize_rows<float>(nullptr, as_const(W.view()), options, nullptr, false, scaled);
    matrix<float> swept(n, c);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < c; ++j) {
        swept(i, j) = W(i, prepared.order[j]);
        moving.push_back(swept(i, j));
      }
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(n * c));
    std::vector<double> losses(static_cast<std::size_t>(n));
    slimtrim::detail::grid_chooser chooser(options, prepared, true, scaled, codes.data());
    column_sweep(reference_backend{}, swept.view(), as_const(prepared.factor.view()), sweep_blocks(c, 128, 0), chooser,
                 vector_view<double>(losses.data(), n));
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < c; ++j) expected.push_back(codes[static_cast<std::size_t>(i * c + prepared.order[j])]);
    expected_losses.insert(expected_losses.end(), losses.begin(), losses.end());
    for (index_t i = 0; i < c * c; ++i) factors.push_back(prepared.factor.view().data[i]);
    for (index_t j = 0; j < c; ++j) group_of.push_back(static_cast<std::int32_t>(prepared.order[j] / is.group));
    for (index_t g = 0; g < groups; ++g)
      for (index_t i = 0; i < n; ++i) {
        scales.push_back(scaled.at(i, g).scale);
        zeros.push_back(static_cast<std::uint8_t>(scaled.at(i, g).zero));
      }
  }
  auto const upload = [&](auto const& from) { return device.keep(from.data(), static_cast<index_t>(from.size())); };
  cuda::sweep_batch const batch{is.problems,
                                n,
                                c,
                                groups,
                                upload(moving),
                                upload(factors),
                                upload(group_of),
                                upload(scales),
                                is.symmetric ? nullptr : upload(zeros),
                                device.keep<std::uint8_t>(nullptr, is.problems * n * c),
                                device.keep<double>(nullptr, is.problems * n)};
  cuda::column_sweep(device.backend().on(), batch, options.grid, precision);
  device.backend().synchronise();
  auto const codes = device.download(device_vector<std::uint8_t>(batch.codes, is.problems * n * c));
  auto const losses = device.download(device_vector<double>(batch.losses, is.problems * n));
  // A value on the edge of a rounding may fall the other way, as sums are formed in another order, and takes its row
  // along.
  double different = 0, total = 0, expected_total = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) different += codes[i] != expected[i];
  for (std::size_t i = 0; i < losses.size(); ++i) {
    total += losses[i];
    expected_total += expected_losses[i];
  }
  CAPTURE(n);
  CAPTURE(c);
  CHECK(different <= most_different * static_cast<double>(codes.size()));
  CHECK(total == doctest::Approx(expected_total).epsilon(loss_apart));
  // The same input again: the same bits.
  cuda::sweep_batch second = batch;
  second.moving = upload(moving);
  second.codes = device.keep<std::uint8_t>(nullptr, is.problems * n * c);
  cuda::column_sweep(device.backend().on(), second, options.grid, precision);
  CHECK(device.download(device_vector<std::uint8_t>(second.codes, is.problems * n * c)) == codes);
}

}  // namespace

TEST_CASE("cuda column_sweep: the host's codes, for rows and columns that fill nothing evenly") {
  // Twenty columns are one launch and a part of a panel, 300 are three launches, the last of 44 columns.
  check_sweep({1, 1, 20, 8}, cuda::float_precision::single, 0.02);
  check_sweep({3, 37, 300, 32}, cuda::float_precision::single, 0.02);
  check_sweep({2, 130, 64, 64, false}, cuda::float_precision::single, 0.02);
}

TEST_CASE("cuda column_sweep: in the order of columns as stored") {
  check_sweep({2, 20, 150, 50, true, column_order::natural}, cuda::float_precision::single, 0.02);
}

TEST_CASE("cuda column_sweep: products on tensor cores cost next to nothing in error") {
  // Corrections are off by 2^-11 of themselves: one value in a few hundred changes sides and takes the rest of its row
  // along, so codes say nothing; the sum of losses over 74 rows stays.
  check_sweep({2, 37, 300, 32}, cuda::float_precision::tensor_float, 1.0, 0.03);
}

TEST_CASE("cuda column_sweep: nothing to do, and what it does not take") {
  cuda_tests::device_memory device;
  cuda::sweep_batch none;
  CHECK_NOTHROW(cuda::column_sweep(device.backend().on(), none, uniform_grid{}));
  CHECK_THROWS_AS(cuda::column_sweep(device.backend().on(), none, uniform_grid{4, false}), error);
  CHECK_THROWS_AS(cuda::column_sweep(device.backend().on(), none, uniform_grid{9, true}), error);
}

}  // namespace cuda_column_sweep_test
