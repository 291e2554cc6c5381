// Quantisation on the device against the host's rtn, bit for bit.
#include "cuda/support.hpp"

#include <doctest/doctest.h>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/quantize.cuh>
#include <slimtrim/slim/quantize/rtn.hpp>

#include <cmath>
#include <limits>
#include <type_traits>

namespace cuda_quantize_test {

using namespace slimtrim;

namespace {

template <class T>
void check_quantise(index_t rows, index_t columns, index_t group, bool symmetric, scale_type type,
                    backend_tests::layout how = backend_tests::layout::rows) {
  cuda_tests::device_memory device;
  tensor<T, 2> W(rows, columns);
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < columns; ++c) {
      // A row of zeros, one of vanishing weights, and one of vast ones, whose scales the fast division does not take as they are.
      double const vast = std::is_same_v<T, float16> ? 1e4 : 1e35;
      double const size = r == 1 ? 0.0 : (r == 2 ? 1e-36 : (r == 3 ? vast : 0.02));
      W(r, c) = static_cast<T>(static_cast<float>(size * normal_at(2, 2, static_cast<std::uint64_t>(r * columns + c))));
    }
  uniform_grid const grid{.bits = 4, .symmetric = symmetric};
  auto const expected = rtn(reference_backend{}, as_const(W.view()), {.grid = grid, .groups = {.size = group}, .scales_stored_as = type});
  index_t const groups = columns / group;
  cuda::quantised_outputs out{device.matrix<std::uint32_t>(rows, columns / 8), device.matrix<float>(rows, groups), {}};
  if (!symmetric) out.zeros = device.matrix<std::uint8_t>(rows, groups);
  cuda::quantise<T>(device.backend().on(), as_const(device.upload_matrix<T>(W, how)), grid, group, type, out);
  device.backend().synchronise();
  auto const words = device.download<std::uint32_t>(out.words);
  auto const scales = device.download<float>(out.scales);
  for (std::size_t i = 0; i < words.size(); ++i) REQUIRE(words[i] == expected.words.view().data[i]);
  for (std::size_t i = 0; i < scales.size(); ++i) REQUIRE(scales[i] == expected.scales.view().data[i]);
  if (!symmetric) {
    auto const zeros = device.download<std::uint8_t>(out.zeros);
    for (std::size_t i = 0; i < zeros.size(); ++i) REQUIRE(zeros[i] == expected.zeros.view().data[i]);
  }
}

}  // namespace

TEST_CASE("cuda quantise: codes, scales and zero points are the host's") {
  for (bool symmetric : {true, false}) {
    check_quantise<float>(5, 256, 128, symmetric, scale_type::bfloat16);
    check_quantise<bfloat16>(33, 192, 64, symmetric, scale_type::float16);
    check_quantise<float16>(4, 320, 320, symmetric, scale_type::float32);
    check_quantise<float>(4, 24, 8, symmetric, scale_type::bfloat16, backend_tests::layout::padded_rows);
    check_quantise<bfloat16>(4, 256, 128, symmetric, scale_type::bfloat16, backend_tests::layout::columns);
  }
}

TEST_CASE("cuda quantise: the fast division rounds as division does") {
  for (std::uint64_t i = 0; i < 200000; ++i) {
    // Scales of every size, weights up to eight times as large, whole multiples and halves of steps among them.
    float const scale = bits_as<float>(0x00000001U + static_cast<std::uint32_t>(random_bits_at(7, 1, i) % 0x7c000000U));
    float const factor = i % 4 == 0 ? static_cast<float>(static_cast<int>(random_bits_at(7, 2, i) % 33) - 16) / 2
                                    : static_cast<float>(2.7 * normal_at(7, 3, i));
    float const w = scale * factor;
    cuda::detail::scale_divisor const by(scale);
    float const found = by.divide(w * by.factor), expected = w / scale;
    // Below what any weight is rounded by, a quotient of vanishing numbers may lose its last bits.
    CAPTURE(scale);
    CAPTURE(w);
    REQUIRE((found == expected || (std::abs(expected) < 0x1p-20F && std::abs(found) < 0x1p-20F)));
  }
}

TEST_CASE("cuda quantise: a weight that is not finite is reported, and shapes that do not fit are refused") {
  cuda_tests::device_memory device;
  tensor<float, 2> W(2, 64);
  W.fill(1.0F);
  W(1, 40) = std::numeric_limits<float>::infinity();
  auto const w = as_const(device.upload_matrix<float>(W));
  cuda::quantised_outputs const out{device.matrix<std::uint32_t>(2, 8), device.matrix<float>(2, 2), {}};
  cuda::quantise<float>(device.backend().on(), w, {}, 32, scale_type::bfloat16, out);
  CHECK_THROWS_WITH_AS(device.backend().synchronise(), "cuda: element 96 of an operand: expected a finite number", numeric_error);
  CHECK_THROWS_AS(cuda::quantise<float>(device.backend().on(), w, {}, 24, scale_type::bfloat16, out), error);
}

}  // namespace cuda_quantize_test
