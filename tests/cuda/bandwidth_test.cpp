// The kernel behind the figure of bandwidth reads each word once. How fast it is no test can say.
#include "cuda/support.hpp"

#include <slimtrim/cuda/bandwidth.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace cuda_bandwidth_test {

using namespace slimtrim;

namespace {

constexpr std::uint32_t sign = 0x12345678U;  // the sum that a thread writes down
constexpr std::uint32_t poison = 0xffffffffU;

// What is written where all words are zero but some: `sign` exactly if the words that one thread met add up to it.
struct word {
  index_t place;
  std::uint32_t value;
};
std::uint32_t written(index_t count, std::vector<word> const& some, unsigned blocks) {
  cuda_tests::device_memory device;
  std::vector<std::uint32_t> words(static_cast<std::size_t>(4 * count), 0U);
  for (word const& one : some) words[static_cast<std::size_t>(one.place)] = one.value;
  auto const out = device.vector<std::uint32_t>(1);
  auto* const from = reinterpret_cast<cuda::words4 const*>(device.keep<std::uint32_t>(words.data(), 4 * count));
  cuda::launch(device.backend().on().stream(), {dim3(blocks), 512, 0}, cuda::detail::read_words, from, count, out.data);
  return device.download<std::uint32_t>(out).front();
}

}  // namespace

TEST_CASE("bandwidth: no word is left out, for counts that are no multiple of the grid") {
  for (index_t count : {1, 17, 512, 1041, 2 * 1024 * 8 + 5})
    for (index_t place : {index_t{0}, index_t{1}, count * 2 + 1, 4 * count - 2, 4 * count - 1}) {
      CAPTURE(count);
      CAPTURE(place);
      CHECK(written(count, {{place, sign}}, 2) == sign);
    }
}

TEST_CASE("bandwidth: a thread reads 16 bytes of each stride of the grid, once") {
  index_t const stride = 4 * 2 * 512, count = 3 * 1024 + 100;
  CHECK(written(count, {{9, sign - 12}, {9 + stride, 5}, {9 + 3 * stride, 7}}, 2) == sign);
  CHECK(written(count, {{9, sign - 5}, {10, 5}}, 2) == poison);           // bits of the 16 bytes are joined, not added
  CHECK(written(count, {{9, sign - 5}, {13 + stride, 5}}, 2) == poison);  // another thread's
  CHECK(written(17, {{40, sign / 2}}, 2) == poison);                      // twice would be the sign
  CHECK(written(17, {}, 2) == poison);
  CHECK(written(0, {}, 1) == poison);
}

TEST_CASE("bandwidth: a figure that is one, whatever it is") {
  cuda_tests::device_memory device;
  double const found = cuda::read_bandwidth(device.backend().on());
  CHECK(std::isfinite(found));
  CHECK(found > 0);
  device.backend().synchronise();
}

}  // namespace cuda_bandwidth_test
