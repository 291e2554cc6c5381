// Text generation: prefill, then one token at a time with a KV cache, for one sequence or several in step.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/model/forward.hpp>
#include <slimtrim/model/generate_options.hpp>
#include <slimtrim/model/kv_cache.hpp>
#include <slimtrim/model/model.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

struct generation {
  kv_cache cache;
  std::vector<std::uint32_t> made{};
};

}  // namespace detail

/// Continues every prompt (at least one token each) by up to `options.length` tokens; all running sequences take their
/// step in one pass. Returns the new tokens of each. Caches take 8 bytes * layers * key_value_heads * head_dim per token
/// and sequence (less as `cache` says). A greedy result does not depend on the executor; whether sequences are generated together or alone may
/// change the last bits of logits. Throws `error` on an empty prompt or an id outside the vocabulary.
template <host_backend B>
[[nodiscard]] std::vector<std::vector<std::uint32_t>> generate(B const& backend, model const& m,
                                                               std::span<std::vector<std::uint32_t> const> prompts,
                                                               generate_options const& options,
                                                               forward_workspace& work,
                                                               token_callback const& on_token = {}) {
  expects(options.length >= 0, "generate", "length: expected a count >= 0");
  std::vector<std::vector<std::uint32_t>> results(prompts.size());
  if (options.length == 0) return results;
  sampler draw(options.sampling);
  std::vector<detail::generation> states;
  tensor<float, 2> last(static_cast<index_t>(prompts.size()), m.config.hidden);
  for (std::vector<std::uint32_t> const& prompt : prompts) {
    expects(!prompt.empty(), "generate", "prompt: expected at least one token");
    auto const count = static_cast<index_t>(prompt.size()), at = static_cast<index_t>(states.size());
    states.push_back({kv_cache(m.config, count + options.length - 1, options.cache)});
    tensor<float, 2> prefill(count, m.config.hidden);
    token_sequence const whole[1] = {{count, 0, &states.back().cache}};
    forward(backend, m, prompt, std::span<token_sequence const>(whole), prefill.view(), work);
    detail::copy_rows(rows(as_const(prefill.view()), count - 1, 1), rows(last.view(), at, 1));
  }

  std::vector<index_t> running;
  for (index_t i = 0; i < static_cast<index_t>(states.size()); ++i) running.push_back(i);
  std::vector<std::uint32_t> next;
  std::vector<token_sequence> sequences;
  tensor<float, 2> logits(last.extent(0), m.config.vocabulary);
  for (index_t step = 0; !running.empty(); ++step) {
    auto const count = static_cast<index_t>(running.size());
    auto const wanted = rows(logits.view(), 0, count);
    final_logits(backend, m.config, m.ends, rows(as_const(last.view()), 0, count), wanted, work);
    next.clear();
    sequences.clear();
    std::vector<index_t> still;
    for (index_t i = 0; i < count; ++i) {
      index_t const at = running[static_cast<std::size_t>(i)];
      detail::generation& state = states[static_cast<std::size_t>(at)];
      std::uint32_t const token = draw(row(as_const(wanted), i), options.first_sequence + static_cast<std::uint64_t>(at),
                                       static_cast<std::uint64_t>(step));
      state.made.push_back(token);
      bool const stop = std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) !=
                        options.stop_tokens.end();
      bool const wants_more = !on_token || on_token(at, token);
      if (stop || !wants_more || step + 1 == options.length) continue;
      still.push_back(at);
      next.push_back(token);
      sequences.push_back({1, state.cache.length(), &state.cache});
    }
    running = still;
    if (running.empty()) break;
    forward(backend, m, next, std::span<token_sequence const>(sequences),
            rows(last.view(), 0, static_cast<index_t>(running.size())), work);
  }
  for (std::size_t i = 0; i < states.size(); ++i) results[i] = std::move(states[i].made);
  return results;
}

/// The same for one prompt.
template <host_backend B>
[[nodiscard]] std::vector<std::uint32_t> generate(B const& backend, model const& m, std::vector<std::uint32_t> prompt,
                                                  generate_options const& options, forward_workspace& work,
                                                  token_callback const& on_token = {}) {
  std::vector<std::vector<std::uint32_t>> const prompts{std::move(prompt)};
  auto results = generate(backend, m, std::span<std::vector<std::uint32_t> const>(prompts), options, work, on_token);
  return std::move(results.front());
}

}  // namespace v0
}  // namespace slimtrim
