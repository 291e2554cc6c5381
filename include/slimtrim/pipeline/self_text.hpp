// Text that a model samples from itself: calibration data that nobody has to download.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/model/generate.hpp>
#include <slimtrim/model/model.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Continues prompts as `generate` does, wherever the model is.
using text_generator = std::function<std::vector<std::vector<std::uint32_t>>(
    std::span<std::vector<std::uint32_t> const> prompts, generate_options const&, token_callback const&)>;

/// `windows` texts of `sequence` tokens, one after another: the first token of each uniform over the vocabulary, the
/// others sampled at temperature 1, all determined by `seed`. Text w depends on the seed and w (and, through the
/// rounding of products over several texts, on the group of `together` that it is in). Caches of one group are held.
/// Throws what the forward pass and `on_progress` throw.
[[nodiscard]] inline std::vector<std::uint32_t> sample_text(text_generator const& continue_all, index_t vocabulary, index_t windows,
                                                            index_t sequence, std::uint64_t seed,
                                                            progress_callback const& on_progress = {}) {
  constexpr index_t together = 16;
  constexpr std::uint64_t first_tokens = UINT64_MAX;  // the sampler draws from streams 0, 1, ...
  std::vector<std::uint32_t> text;
  text.reserve(static_cast<std::size_t>(windows * sequence));
  generate_options options;
  options.length = sequence - 1;
  options.sampling.temperature = 1;
  options.sampling.seed = seed;
  index_t made = 0;
  for (index_t first = 0; first < windows; first += together) {
    index_t const count = std::min(together, windows - first);
    std::vector<std::vector<std::uint32_t>> prompts;
    for (index_t w = first; w < first + count; ++w) {
      double const place = uniform_at(seed, first_tokens, static_cast<std::uint64_t>(w));
      prompts.push_back({static_cast<std::uint32_t>(place * static_cast<double>(vocabulary))});
    }
    options.first_sequence = static_cast<std::uint64_t>(first);
    auto const texts = continue_all(prompts, options, [&](index_t, std::uint32_t) {
      report_progress(on_progress, "sample", ++made, windows * (sequence - 1), "tokens");
      return true;
    });
    for (std::size_t i = 0; i < texts.size(); ++i) {
      text.push_back(prompts[i].front());
      text.insert(text.end(), texts[i].begin(), texts[i].end());
    }
  }
  return text;
}

/// The same by a model on the host.
template <host_backend B>
[[nodiscard]] std::vector<std::uint32_t> sample_text(B const& backend, model const& m, index_t windows, index_t sequence,
                                                     std::uint64_t seed, progress_callback const& on_progress = {}) {
  forward_workspace work;
  text_generator const on_host = [&](std::span<std::vector<std::uint32_t> const> prompts, generate_options const& options,
                                     token_callback const& on_token) {
    return generate(backend, m, prompts, options, work, on_token);
  };
  return sample_text(on_host, m.config.vocabulary, windows, sequence, seed, on_progress);
}

}  // namespace v0
}  // namespace slimtrim
