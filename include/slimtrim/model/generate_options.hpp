// What a caller of text generation chooses, wherever the model runs.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/model/kv_cache.hpp>  // kv_precision
#include <slimtrim/model/sampler.hpp>

#include <cstdint>
#include <functional>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct generate_options {
  /// New tokens per sequence.
  index_t length = 0;
  sampler_options sampling{};
  /// A sequence ends after one of these.
  std::vector<std::uint32_t> stop_tokens{};
  /// How keys and values of past tokens are kept.
  kv_precision cache = kv_precision::floating;
  /// Sequence i draws from stream first_sequence + i of the seed.
  std::uint64_t first_sequence = 0;
};

/// Called after every new token, with the sequence's index; false ends that sequence.
using token_callback = std::function<bool(index_t sequence, std::uint32_t token)>;

}  // namespace v0
}  // namespace slimtrim
