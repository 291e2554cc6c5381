// Pairs by expert against buckets filled one pair after another.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/group.cuh>
#include <doctest/doctest.h>

#include <vector>

namespace cuda_group_test {

using namespace slimtrim;

namespace {

constexpr std::int32_t poison = 7777;

// expert(pair) < 0: the slot is not used.
template <class Expert>
void check(index_t tokens, index_t slots, index_t experts, Expert const& expert) {
  CAPTURE(tokens);
  CAPTURE(experts);
  cuda_tests::device_memory device;
  index_t const pairs = tokens * slots;
  tensor<std::int32_t, 2> indices(tokens, slots);
  std::vector<std::vector<std::int32_t>> buckets(static_cast<std::size_t>(experts));
  for (index_t p = 0; p < pairs; ++p) {
    auto const e = static_cast<std::int32_t>(expert(p));
    indices.view().data[p] = e;
    if (e >= 0) buckets[static_cast<std::size_t>(e)].push_back(static_cast<std::int32_t>(p));
  }
  // Another poison than -1, which is a position.
  auto const poisoned = [&](index_t count) {
    std::vector<std::int32_t> const some(static_cast<std::size_t>(count), poison);
    return device_vector<std::int32_t>(device.keep<std::int32_t>(some.data(), count), count);
  };
  auto const offsets = poisoned(experts + 1), in_order = poisoned(pairs), position = poisoned(pairs),
             active = poisoned(experts), count = poisoned(1);
  device_matrix<std::int32_t const> const sent(device.keep<std::int32_t>(indices.view().data, pairs), tokens, slots);
  cuda::expert_groups const groups{offsets.data, in_order.data, position.data, active.data, count.data};
  cuda::group_pairs(device.backend().on(), sent, experts, groups);

  std::vector<std::int32_t> begins{0}, all, places(static_cast<std::size_t>(pairs), -1), busy;
  for (std::size_t e = 0; e < buckets.size(); ++e) {
    for (std::int32_t const p : buckets[e]) {
      places[static_cast<std::size_t>(p)] = static_cast<std::int32_t>(all.size());
      all.push_back(p);
    }
    begins.push_back(static_cast<std::int32_t>(all.size()));
    if (!buckets[e].empty()) busy.push_back(static_cast<std::int32_t>(e));
  }
  CHECK(device.download<std::int32_t>(offsets) == begins);
  CHECK(device.download<std::int32_t>(position) == places);
  auto found = device.download<std::int32_t>(in_order), found_active = device.download<std::int32_t>(active);
  for (std::size_t i = all.size(); i < found.size(); ++i) REQUIRE(found[i] == poison);
  found.resize(all.size());
  CHECK(found == all);
  REQUIRE(device.download<std::int32_t>(count).front() == static_cast<std::int32_t>(busy.size()));
  found_active.resize(busy.size());
  CHECK(found_active == busy);
}

std::uint64_t bits(index_t pair) { return random_bits_at(3, 1, static_cast<std::uint64_t>(pair)); }

}  // namespace

TEST_CASE("group: random pairs, more than a block's threads, one in five unused, an expert without pairs") {
  for (index_t tokens : {1, 17, 128, 300})
    for (index_t experts : {1, 4, 60})
      check(tokens, 2, experts, [&](index_t p) {
        return bits(p) % 5 == 0 ? index_t{-1} : static_cast<index_t>(bits(p) >> 8) % (experts > 1 ? experts - 1 : 1);
      });
  check(3, 8, 300, [](index_t p) { return 299 - 12 * p; });  // more experts than threads
}

TEST_CASE("group: all on one expert, all unused, no tokens") {
  check(140, 2, 7, [](index_t) { return 6; });
  check(17, 3, 5, [](index_t) { return -1; });
  check(0, 2, 5, [](index_t) { return 0; });
}

TEST_CASE("group: what no launch can take is refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const indices = as_const(device.matrix<std::int32_t>(4, 2));
  CHECK_THROWS_WITH_AS(cuda::group_pairs(on, transposed(indices), 4, {}),
                       "cuda::group_pairs: indices: expected contiguous rows", error);
  for (index_t experts : {0, 8193})
    CHECK_THROWS_WITH_AS(cuda::group_pairs(on, indices, experts, {}), "cuda::group_pairs: experts: expected 1 .. 8192",
                         error);
}

}  // namespace cuda_group_test
