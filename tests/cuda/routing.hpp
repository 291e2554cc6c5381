// Random routing on the host and on the device.
#pragma once

#include "cuda/support.hpp"

#include <slimtrim/cuda/router_statistics.cuh>

namespace cuda_tests {

// Random routing: distinct experts a token, a few unused slots, one expert that nobody chooses.
struct routed {
  tensor<float, 2> probabilities, weights;
  tensor<std::int32_t, 2> indices;
  routed(index_t tokens, index_t experts, index_t slots, std::uint64_t seed)
      : probabilities(tokens, experts), weights(tokens, slots), indices(tokens, slots) {
    for (index_t t = 0; t < tokens; ++t) {
      auto const at = static_cast<std::uint64_t>(t);
      for (index_t j = 0; j < experts; ++j)
        probabilities(t, j) = static_cast<float>(uniform_at(seed, at, static_cast<std::uint64_t>(j)));
      index_t const first = static_cast<index_t>(random_bits_at(seed, at, 1000)) & 0xff;
      for (index_t s = 0; s < slots; ++s) {
        bool const unused = random_bits_at(seed, at, 2000 + static_cast<std::uint64_t>(s)) % 5 == 0;
        indices(t, s) = unused || experts == 1 ? (experts == 1 && s == 0 ? 0 : -1)
                                               : static_cast<std::int32_t>((first + s) % (experts - 1));
        weights(t, s) = indices(t, s) < 0
                            ? 0.0F
                            : static_cast<float>(0.1 + uniform_at(seed, at, 3000 + static_cast<std::uint64_t>(s)));
      }
    }
  }
  routing_view view() const {
    return {as_const(probabilities.view()), as_const(indices.view()), as_const(weights.view())};
  }
};

inline cuda::device_routing upload_routing(device_memory& device, routed const& from) {
  return {as_const(device.upload_matrix<float>(from.probabilities)),
          as_const(device.upload_matrix<std::int32_t>(from.indices)),
          as_const(device.upload_matrix<float>(from.weights))};
}

}  // namespace cuda_tests
