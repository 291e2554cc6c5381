// Norms of experts' outputs on the device against the host's accumulator.
#include "cuda/routing.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/expert_norms.cuh>
#include <slimtrim/router/dispatch.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <span>
#include <vector>

namespace cuda_expert_norms_test {

using namespace slimtrim;

TEST_CASE("cuda expert_norms: the host's sums, from plain outputs and from outputs that carry their weight") {
  for (auto const given : {cuda::output_weight::none, cuda::output_weight::applied})
    for (index_t tokens : {0, 1, 90}) {
      index_t const experts = 7, slots = 2, hidden = 40;
      cuda_tests::device_memory device;
      auto& on = device.backend().on();
      cuda_tests::routed const r(tokens, experts, slots, 23);
      auto const groups = group_by_expert(as_const(r.indices.view()), experts);
      tensor<float, 2> outputs(tokens * slots, hidden), sent(tokens * slots, hidden);
      std::vector<double> change;
      for (index_t t = 0; t < tokens; ++t) change.push_back(uniform_at(9, 9, static_cast<std::uint64_t>(t)));
      expert_norms host(experts), mine(experts);
      host.begin_window(tokens, slots);
      std::vector<std::int32_t> position(static_cast<std::size_t>(tokens * slots), -1);
      sent.fill(std::nanf(""));  // rows of no pair are not read
      for (index_t e = 0; e < experts; ++e) {
        index_t const first = groups.offsets[static_cast<std::size_t>(e)], count = groups.count(e);
        for (index_t i = first; i < first + count; ++i) {
          auto const at = static_cast<std::size_t>(i);
          position[static_cast<std::size_t>(groups.tokens[at] * slots + groups.slots[at])] =
              static_cast<std::int32_t>(i);
          float const weight =
              given == cuda::output_weight::applied ? r.weights(groups.tokens[at], groups.slots[at]) : 1.0F;
          for (index_t j = 0; j < hidden; ++j) {
            outputs(i, j) =
                static_cast<float>(normal_at(3, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(j)));
            sent(i, j) = weight * outputs(i, j);
          }
        }
        auto const begin = static_cast<std::size_t>(first), length = static_cast<std::size_t>(count);
        host.add_outputs(reference_backend{}, e, std::span(groups.tokens).subspan(begin, length),
                         std::span(groups.slots).subspan(begin, length), as_const(rows(outputs.view(), first, count)));
      }
      host.add(r.view(), change);
      cuda::expert_groups on_device{};
      std::vector<std::int32_t> const offsets(groups.offsets.begin(), groups.offsets.end());
      on_device.offsets = device.keep<std::int32_t>(offsets.data(), experts + 1);
      on_device.position = device.keep<std::int32_t>(position.data(), tokens * slots);
      cuda::expert_norm_accumulator sums(on, experts);
      sums.add(on, cuda_tests::upload_routing(device, r), on_device, as_const(device.upload_matrix<float>(sent)), given,
               device_vector<double const>(device.keep<double>(change.data(), tokens), tokens));
      mine.begin_window(tokens, slots);
      mine.add(sums.sums(on));
      host.commit_window();
      mine.commit_window();
      // Norms are rounded to float, with a weight on it once more: 2^-23 of each.
      auto const close = [](double found, double expected) {
        return std::abs(found - expected) <= 5e-7 * std::abs(expected);
      };
      for (index_t j = 0; j < experts; ++j) {
        CHECK(close(mine.norm(j), host.norm(j)));
        CHECK(close(mine.square(j), host.square(j)));
        CHECK(close(mine.weighted(j), host.weighted(j)));
        CHECK(close(mine.raw_weighted(j), host.raw_weighted(j)));
        CHECK(close(mine.renormalised_weighted(j), host.renormalised_weighted(j)));
        CHECK(close(mine.weighted_square(j), host.weighted_square(j)));
        CHECK(close(mine.change_weighted(j), host.change_weighted(j)));
        CHECK(close(mine.largest(j), host.largest(j)));
        for (index_t i = 0; i < experts; ++i) CHECK(close(mine.pair(j, i), host.pair(j, i)));
      }
    }
}

}  // namespace cuda_expert_norms_test
