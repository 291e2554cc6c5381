// Every element of a matrix is visited exactly once, whichever index is the fast one; copies convert and keep what lies
// between the elements.
#include "cuda/support.hpp"

#include <slimtrim/cuda/elementwise.cuh>
#include <doctest/doctest.h>

#include <vector>

namespace cuda_elementwise_test {

using namespace slimtrim;
using backend_tests::layout;

namespace {

struct count_visits {
  device_matrix<std::int32_t> counts;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { counts(i, j) += 1; }
};

}  // namespace

TEST_CASE("elementwise: each element once, for extents of one, of several blocks and of none") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const beyond = 32 * on.multiprocessors() * 256 / 100 + 7;  // rows of 100: more than one pass of the grid
  struct extents {
    index_t n, m;
  };
  for (extents const size : {extents{1, 1}, {1, 300}, {300, 1}, {17, 31}, {0, 5}, {5, 0}, {beyond, 100}})
    for (bool rows_fast : {false, true}) {
      CAPTURE(size.n);
      CAPTURE(size.m);
      std::vector<std::int32_t> zeros(static_cast<std::size_t>(size.n * size.m + 1), 0);
      std::int32_t* const counts = device.keep<std::int32_t>(zeros.data(), size.n * size.m + 1);
      cuda::for_each_element(on, size.n, size.m, rows_fast,
                             count_visits{device_matrix<std::int32_t>(counts, size.n, size.m)});
      auto const found = device.download<std::int32_t>(device_vector<std::int32_t>(counts, size.n * size.m + 1));
      std::vector<std::int32_t> expected(zeros.size(), 1);
      expected.back() = 0;
      CHECK(found == expected);
    }
}

TEST_CASE("elementwise: copies between layouts and types, with poison left between rows") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const n = 17, m = 13, pitch = 20;
  tensor<float, 2> X(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j) X(i, j) = static_cast<float>(i) + 0.01F * static_cast<float>(j);
  for (auto const how : {layout::rows, layout::columns, layout::padded_rows}) {
    auto const from = as_const(device.upload_matrix<float>(X, how));
    auto const halves = device.vector<bfloat16>(n * pitch);
    index_t const sizes[2] = {n, m}, down[2] = {pitch, 1};
    cuda::copy_elements<float, bfloat16>(on, from, device_matrix<bfloat16>(halves.data, sizes, down));
    auto const found = device.download<bfloat16>(halves);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < pitch; ++j) {
        bfloat16 const one = found[static_cast<std::size_t>(i * pitch + j)];
        REQUIRE(one.bits == (j < m ? bfloat16(X(i, j)).bits : 0xffff));
      }
    // Into columns, and back to front.
    auto const turned = device.matrix<double>(m, n);
    cuda::copy_elements<float, double>(on, from, transposed(turned));
    auto const backwards = device.vector<float>(n * m);
    index_t const back[2] = {-m, -1};
    cuda::copy_elements<float, float>(on, from, device_matrix<float>(backwards.data + n * m - 1, sizes, back));
    auto const by_column = device.download<double>(turned);
    auto const reversed = device.download<float>(backwards);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j) {
        REQUIRE(by_column[static_cast<std::size_t>(j * n + i)] == static_cast<double>(X(i, j)));
        REQUIRE(reversed[static_cast<std::size_t>(n * m - 1 - i * m - j)] == X(i, j));
      }
    // One row for all.
    auto const spread = device.matrix<float>(4, m);
    index_t const four[2] = {4, m}, still[2] = {0, from.stride(1)};
    cuda::copy_elements<float, float>(on, device_matrix<float const>(from.data, four, still), spread);
    auto const rows_found = device.download<float>(spread);
    for (index_t i = 0; i < 4; ++i)
      for (index_t j = 0; j < m; ++j) REQUIRE(rows_found[static_cast<std::size_t>(i * m + j)] == X(0, j));
  }
}

}  // namespace cuda_elementwise_test
