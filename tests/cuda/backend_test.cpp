// The typed suite of all backends, on the device or on emulated threads: which of them depends on who compiles this file.
#include "backend/backend_suite.hpp"
#include "cuda/support.hpp"

#include <slimtrim/cuda/backend.cuh>
#include <slimtrim/similarity/cosine.hpp>

#include <cmath>
#include <limits>
#include <type_traits>

namespace cuda_backend_test {

using namespace slimtrim;

struct cuda_harness : cuda_tests::device_memory {
  static constexpr space memory = space::device;
  static constexpr double factor_roundoff = 0x1p-53;
};
SLIMTRIM_BACKEND_SUITE(cuda_harness)

static_assert(tensor_backend<cuda_backend> && !host_backend<cuda_backend>);
static_assert(std::is_base_of_v<cuda_backend, default_backend<space::device>>);
static_assert(!reaches<cuda_backend, matrix_view<float>> && reaches<cuda_backend, device_matrix<float>>);
// Fused members are there, so algorithms take them.
static_assert(requires(cuda_backend const& b, device_matrix<bfloat16 const> X, device_vector<float> out) {
  b.row_cosines(X, X, out);
});

namespace {

template <class T>
void check_row_cosines(index_t n, index_t m, backend_tests::layout how, double tolerance) {
  cuda_tests::device_memory device;
  tensor<T, 2> X(n, m), Y(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j) {
      float const x = static_cast<float>(normal_at(1, 1, static_cast<std::uint64_t>(i * m + j)));
      float const y = static_cast<float>(normal_at(1, 2, static_cast<std::uint64_t>(i * m + j)));
      // Rows of very different sizes, and a row of zeros.
      float const size = i == 1 ? 1e-25F : (i == 2 ? 1e25F : (i == 3 ? 0.0F : 1.0F));
      X(i, j) = static_cast<T>(size * x);
      Y(i, j) = static_cast<T>(size * (x + 0.3F * y));
    }
  auto const x = device.upload_matrix<T>(X, how), y = device.upload_matrix<T>(Y, how);
  auto const out = device.vector<float>(n);
  row_cosines(device.backend(), x, y, out);
  device.backend().synchronise();
  auto const found = device.download<float>(out);
  for (index_t i = 0; i < n; ++i) {
    double const expected = detail::scaled_cosine(vector_view<T const>(row(X.view(), i)), vector_view<T const>(row(Y.view(), i)));
    CAPTURE(i);
    CHECK(std::abs(static_cast<double>(found[static_cast<std::size_t>(i)]) - expected) <= tolerance);
  }
}

}  // namespace

TEST_CASE("cuda: row cosines of any type, size and layout") {
  // Chunks of 4 or 8 products are added in float: errors of a few 2^-24 of sums of magnitudes, and the float result.
  for (auto how : {backend_tests::layout::rows, backend_tests::layout::columns, backend_tests::layout::padded_rows})
    for (index_t m : {1, 17, 256, 1000}) {
      check_row_cosines<float>(9, m, how, 1e-6);
      check_row_cosines<bfloat16>(9, m, how, 1e-6);
    }
  check_row_cosines<double>(5, 64, backend_tests::layout::rows, 1e-7);
}

TEST_CASE("cuda: a row that is not finite is reported once, by its number") {
  cuda_tests::device_memory device;
  tensor<float, 2> X(3, 40);
  X.fill(1.0F);
  X(2, 7) = std::numeric_limits<float>::quiet_NaN();
  auto const x = device.upload_matrix<float>(X, backend_tests::layout::rows);
  auto const out = device.vector<float>(3);
  row_cosines(device.backend(), x, x, out);
  CHECK_THROWS_WITH_AS(device.backend().synchronise(), "cuda: element 2 of an operand: expected a finite number", numeric_error);
  CHECK_NOTHROW(device.backend().synchronise());
  CHECK(device.download<float>(out) == std::vector<float>{1, 1, 0});
}

TEST_CASE("cuda: memory that cannot be had is an error that says how much, and nothing afterwards suffers") {
  cuda_tests::device_memory device;
  CHECK_THROWS_WITH_AS(cuda::device_buffer<float>(index_t{1} << 50),
                       "cuda: device memory exhausted: 4503599627370496 bytes could not be had", system_failure);
  tensor<float, 2> X(3, 40);
  X.fill(1.0F);
  auto const x = device.upload_matrix<float>(X, backend_tests::layout::rows);
  auto const out = device.vector<float>(3);
  CHECK_NOTHROW(row_cosines(device.backend(), x, x, out));
  device.backend().synchronise();
  CHECK(device.download<float>(out) == std::vector<float>{1, 1, 1});
}

TEST_CASE("cuda: the cosine of two vectors in device memory is made of dots") {
  cuda_tests::device_memory device;
  tensor<float, 2> X(2, 100);
  for (index_t j = 0; j < 100; ++j) {
    X(0, j) = 1;
    X(1, j) = j < 50 ? 1 : -1;
  }
  auto const x = device.upload_matrix<float>(X, backend_tests::layout::rows);
  CHECK(cosine_similarity(device.backend(), row(x, 0), row(x, 0)) == doctest::Approx(1));
  CHECK(cosine_similarity(device.backend(), row(x, 0), row(x, 1)) == doctest::Approx(0));
}

TEST_CASE("cuda: a Gram matrix of bfloat16 activations") {
  cuda_tests::device_memory device;
  index_t const n = 37, m = 24;
  tensor<bfloat16, 2> X(n, m);
  tensor<float, 2> H(m, m);
  for (index_t i = 0; i < n * m; ++i)
    X.view().data[i] = bfloat16(static_cast<float>(normal_at(4, 4, static_cast<std::uint64_t>(i))));
  H.fill(0.25F);
  auto const h = device.upload_matrix<float>(H, backend_tests::layout::rows);
  device.backend().gram_update(2.0F, as_const(device.upload_matrix<bfloat16>(X)), h);
  auto const found = device.download<float>(h);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) {
      double expected = 0.25;
      for (index_t t = 0; t < n; ++t)
        expected += 2.0 * static_cast<double>(static_cast<float>(X(t, i))) * static_cast<double>(static_cast<float>(X(t, j)));
      // Products are exact in float, so only the 37 additions round.
      CHECK(std::abs(static_cast<double>(found[static_cast<std::size_t>(i * m + j)]) - expected) < 1e-4);
      CHECK(found[static_cast<std::size_t>(i * m + j)] == found[static_cast<std::size_t>(j * m + i)]);
    }
}

}  // namespace cuda_backend_test
