// Eight neighbours of a row, read 16 bytes at a time and one by one.
#include "cuda/support.hpp"

#include <slimtrim/cuda/row_chunk.cuh>
#include <doctest/doctest.h>

#include <vector>

namespace cuda_row_chunk_test {

using namespace slimtrim;

namespace {

template <class T>
__global__ void read_all(device_matrix<T const> X, bool wide, float behind, index_t chunks, float* out) {
  index_t const row = blockIdx.x, chunk = threadIdx.x;
  if (chunk >= chunks) return;
  float values[cuda::chunk_elements];
  cuda::read_chunk<T>(X, row, chunk * cuda::chunk_elements, wide, behind, values);
  for (int i = 0; i < cuda::chunk_elements; ++i) out[(row * chunks + chunk) * cuda::chunk_elements + i] = values[i];
}

// `wide`: whether rows of `pitch` elements that begin `shift` elements behind an aligned address can be read so.
template <class T>
void check(index_t n, index_t m, index_t pitch, index_t shift, bool wide) {
  CAPTURE(m);
  CAPTURE(pitch);
  CAPTURE(shift);
  cuda_tests::device_memory device;
  std::vector<T> storage;
  for (index_t i = 0; i < shift + n * pitch; ++i) storage.push_back(T(static_cast<float>(i % 251)));
  index_t const sizes[2] = {n, m}, steps[2] = {pitch, 1}, chunks = ceil_div(m, 8);
  T const* const at = device.keep<T>(storage.data(), static_cast<index_t>(storage.size())) + shift;
  device_matrix<T const> const X(at, sizes, steps);
  CHECK(cuda::reads_chunks<T>(X) == wide);
  for (bool now : {false, true}) {
    if (now && !wide) continue;
    auto const out = device.vector<float>(n * chunks * 8);
    cuda::launch(device.backend().on().stream(), {dim3(static_cast<unsigned>(n)), 32, 0}, read_all<T>, X, now, -7.0F,
                 chunks, out.data);
    auto const found = device.download<float>(out);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < 8 * chunks; ++j)
        REQUIRE(found[static_cast<std::size_t>(i * 8 * chunks + j)] ==
                (j < m ? static_cast<float>((shift + i * pitch + j) % 251) : -7.0F));
  }
}

}  // namespace

TEST_CASE("row_chunk: aligned rows, padded ones, and what keeps them from being read 16 bytes at a time") {
  check<bfloat16>(3, 64, 64, 0, true);
  check<bfloat16>(1, 8, 8, 0, true);
  check<float16>(5, 16, 40, 8, true);
  check<float>(3, 24, 28, 4, true);
  check<bfloat16>(3, 17, 24, 0, false);  // a last chunk that is not whole
  check<bfloat16>(3, 16, 20, 0, false);  // rows that do not begin at 16 bytes
  check<bfloat16>(3, 16, 16, 1, false);
  check<float>(3, 16, 18, 0, false);
  check<float>(2, 1, 1, 0, false);
  check<float>(2, 8, 8, 2, false);
}

TEST_CASE("row_chunk: columns that are not neighbours are read one by one") {
  cuda_tests::device_memory device;
  index_t const n = 8, m = 16;
  std::vector<float> storage;
  for (int i = 0; i < n * m; ++i) storage.push_back(static_cast<float>(i));
  auto const X = transposed(device_matrix<float const>(device.keep<float>(storage.data(), n * m), n, m));
  CHECK_FALSE(cuda::reads_chunks<float>(X));
  auto const out = device.vector<float>(m * 8);
  cuda::launch(device.backend().on().stream(), {dim3(16), 32, 0}, read_all<float>, X, false, 0.0F, index_t{1},
               out.data);
  auto const found = device.download<float>(out);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < 8; ++j)
      REQUIRE(found[static_cast<std::size_t>(i * 8 + j)] == static_cast<float>(j * m + i));
}

}  // namespace cuda_row_chunk_test
