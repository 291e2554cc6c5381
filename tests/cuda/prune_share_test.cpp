// The weights that go are those of the host's choice, element by element: by cost, of equal ones the later first.
#include "cuda/support.hpp"

#include <doctest/doctest.h>
#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/prune_share.cuh>
#include <slimtrim/slim/sparse/mask.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace cuda_prune_share_test {

using namespace slimtrim;

namespace {

struct share_case {
  index_t problems = 1, columns = 128, begin = 0;
  int width = 128;
  std::vector<index_t> heights{};
  double rate = 0.5;
};

// value(i): element i of all weights.
template <class Value>
void check_share(share_case const& is, Value const& value) {
  cuda_tests::device_memory device;
  index_t n = 0, most = 0;
  for (index_t const height : is.heights) {
    n += height;
    most = height > most ? height : most;
  }
  index_t const P = is.problems, c = is.columns, words = ceil_div(c, 64);
  std::vector<float> moving(static_cast<std::size_t>(P * n * c)), factors(static_cast<std::size_t>(P * c * c), 0.0F);
  for (std::size_t i = 0; i < moving.size(); ++i) moving[i] = value(i);
  for (index_t p = 0; p < P; ++p)
    for (index_t j = 0; j < c; ++j)
      factors[static_cast<std::size_t>((p * c + j) * c + j)] = static_cast<float>(1 + (j + p) % 3);
  sparsity const pattern{.rate = is.rate};
  std::vector<cuda::pruned_share> shares;
  std::vector<mask> expected;
  for (index_t p = 0; p < P; ++p) {
    mask kept(n, c);
    index_t first = 0;
    for (index_t const height : is.heights) {
      index_t const pruned = pattern.pruned_of(height * is.width);
      shares.push_back({p, first, height, static_cast<std::uint32_t>(pruned)});
      std::vector<float> costs;
      for (index_t r = 0; r < height; ++r)
        for (index_t j = is.begin; j < is.begin + is.width; ++j)
          costs.push_back(detail::removal_cost(moving[static_cast<std::size_t>((p * n + first + r) * c + j)],
                                               factors[static_cast<std::size_t>((p * c + j) * c + j)]));
      std::vector<std::uint64_t> keys;
      detail::drop_lowest(costs.data(), height * is.width, pruned, keys,
                          [&](index_t i) { kept.set(first + i / is.width, is.begin + i % is.width, false); });
      first += height;
    }
    expected.push_back(std::move(kept));
  }
  auto const upload = [&](auto const& from) { return device.keep(from.data(), static_cast<index_t>(from.size())); };
  cuda::competing_columns const from{n, c, upload(moving), upload(factors), is.begin, is.width};
  auto* const on_device = upload(shares);
  for (int round = 0; round < 2; ++round) {  // poison before; the same bits again
    auto* const kept = device.keep<std::uint64_t>(nullptr, P * n * words);
    cuda::prune_share(device.backend().on(), from, on_device, static_cast<index_t>(shares.size()), most, kept);
    auto const found = device.download(device_vector<std::uint64_t>(kept, P * n * words));
    for (index_t p = 0; p < P; ++p)
      for (index_t r = 0; r < n; ++r)
        for (index_t w = is.begin / 64; w < ceil_div(is.begin + is.width, 64); ++w)
          REQUIRE(found[static_cast<std::size_t>((p * n + r) * words + w)] == expected[static_cast<std::size_t>(p)].word(r, w));
  }
}

float normal(std::size_t i) { return static_cast<float>(normal_at(8, 1, static_cast<std::uint64_t>(i))); }

}  // namespace

TEST_CASE("cuda prune_share: the host's choice, for one matrix, a stack and several problems") {
  check_share({.heights = {1}}, normal);
  check_share({.heights = {300}}, normal);
  check_share({.columns = 192, .begin = 128, .width = 64, .heights = {40}}, normal);
  check_share({.columns = 150, .begin = 128, .width = 22, .heights = {9, 140}, .rate = 0.3}, normal);
  check_share({.problems = 3, .columns = 128, .heights = {17, 5}, .rate = 0.8}, normal);
}

TEST_CASE("cuda prune_share: equal costs, of which the later go") {
  for (double const rate : {0.1, 0.5, 0.77}) {
    check_share({.heights = {70}, .rate = rate}, [](std::size_t) { return 1.0F; });
    check_share({.heights = {70}, .rate = rate}, [](std::size_t i) { return std::round(normal(i)); });
    check_share({.columns = 70, .width = 70, .heights = {200}, .rate = rate}, [](std::size_t) { return 0.0F; });
  }
}

TEST_CASE("cuda prune_share: nothing, everything, and costs beyond what floats hold") {
  check_share({.heights = {20}, .rate = 0}, normal);
  check_share({.heights = {20}, .rate = 1}, normal);
  auto const wide = [](std::size_t i) { return normal(i) * std::ldexp(1.0F, static_cast<int>(i % 250) - 125); };
  check_share({.heights = {33}}, wide);
  check_share({.heights = {33}, .rate = 0.9}, [&](std::size_t i) { return i % 2 == 0 ? 1e38F : wide(i); });
}

TEST_CASE("cuda prune_share: what it does not take") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  CHECK_THROWS_AS(cuda::prune_share(on, {.rows = 1, .columns = 256, .begin = 32, .width = 64}, nullptr, 1, 1, nullptr), error);
  CHECK_THROWS_AS(cuda::prune_share(on, {.rows = 1, .columns = 256, .width = 129}, nullptr, 1, 1, nullptr), error);
  CHECK_NOTHROW(cuda::prune_share(on, {.rows = 1, .columns = 256, .width = 128}, nullptr, 0, 0, nullptr));
}

}  // namespace cuda_prune_share_test
