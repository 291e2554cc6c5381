// Text generation on the device: prefill, then a step for all sequences at once, kept as a CUDA graph, so that a token
// costs the device's time alone.
#pragma once

#include <slimtrim/cuda/arch/graph.cuh>
#include <slimtrim/cuda/model/model.cuh>
#include <slimtrim/cuda/sample.cuh>
#include <slimtrim/model/generate_options.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// The step has been taken: every sequence is one token longer, and the next draw is another one.
static __global__ void __launch_bounds__(256) count_step(std::int32_t* lengths, int sequences, std::int32_t* step) {
  int const i = static_cast<int>(blockIdx.x * 256 + threadIdx.x);
  if (i < sequences) ++lengths[i];
  if (i == 0) ++*step;
}

}  // namespace detail

/// The texts of up to `sequences` prompts that are continued in step, and all memory that takes.
template <half_precision T>
class device_generation {
 public:
  /// `capacity`: the longest a text may become. `drawn`: on the device; limits of top-k and nucleus need the logits on
  /// the host.
  device_generation(context& on, device_model<T> const& m, index_t sequences, index_t capacity, draw_options drawn = {},
                    index_t most_prefill = 2048)
      : on_(on),
        model_(m),
        drawn_(drawn),
        cache_(m, sequences, capacity),
        attention_(on, sequences, m.shape.heads, capacity),
        one_(on, m.shape, m.extents, sequences),
        many_(on, m.shape, m.extents, std::min(most_prefill, capacity)),
        tokens_(sequences),
        prompt_(std::min(most_prefill, capacity)),
        lengths_(sequences),
        step_(1),
        logits_(sequences * m.logit_columns()),
        held_(static_cast<std::size_t>(sequences), 0),
        ended_(static_cast<std::size_t>(sequences), 0) {
    expects(most_prefill > 0, "generate", "most_prefill: expected at least 1");
    check(cudaMemsetAsync(lengths_.data(), 0, 4 * static_cast<std::size_t>(sequences), on.stream()),
          "cuda::device_generation");
    check(cudaMemsetAsync(tokens_.data(), 0, 4 * static_cast<std::size_t>(sequences), on.stream()),
          "cuda::device_generation");
    check(cudaMemsetAsync(step_.data(), 0, 4, on.stream()), "cuda::device_generation");
  }

  /// Whether the kernels of a step may begin before those in front of them have ended (context::overlap_launches). Before
  /// the second step, which is the one that is kept as a graph. For up to 16 sequences: products of more take scratch, and no
  /// manual says that a kernel may begin early behind what gives that back in a graph.
  void overlap_launches(bool wanted) { overlaps_ = wanted; }

  [[nodiscard]] index_t sequences() const { return cache_.sequences(); }
  [[nodiscard]] index_t bytes() const { return cache_.bytes(); }

  /// How many experts the tokens of the last step met in the last layer that has some. Waits.
  [[nodiscard]] index_t experts_met() const {
    index_t slots = 0;
    for (device_layer<T> const& layer : model_.layers)
      if (layer.routed) slots = layer.routed->view.rule.top_k;
    std::vector<std::int32_t> chosen(static_cast<std::size_t>(sequences() * slots));
    copy_to_host(on_.stream(), one_.routed.indices.data(), static_cast<index_t>(chosen.size()), chosen.data());
    std::sort(chosen.begin(), chosen.end());
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    return static_cast<index_t>(chosen.size()) - (!chosen.empty() && chosen.front() < 0 ? 1 : 0);
  }

  /// Reads the prompt of one sequence, from its first token. Its last logits are then in the sequence's row. Throws
  /// `error` for a sequence that there is not, an id outside the vocabulary, an empty prompt or one beyond the capacity.
  void prefill(index_t sequence, std::span<std::uint32_t const> prompt) {
    check_sequence(sequence);
    auto const count = static_cast<index_t>(prompt.size());
    expects(count > 0, "generate", "prompt: expected at least one token");
    expects(count <= cache_.capacity(), "generate", "prompt: longer than the cache");
    check_window(count);
    for (std::uint32_t const id : prompt) check_id(static_cast<index_t>(id));
    for (index_t first = 0; first < count; first += prompt_.size()) {
      index_t const n = std::min(prompt_.size(), count - first);
      auto const held = static_cast<std::int32_t>(first);
      copy_to_device(on_.stream(), reinterpret_cast<std::int32_t const*>(prompt.data()) + first, n, prompt_.data());
      copy_to_device(on_.stream(), &held, 1, lengths_.data() + sequence);
      forward<T>(on_, model_, prompt_.data(), n, {lengths_.data() + sequence, n}, cache_, sequence, attention_, many_);
      if (first + n == count)
        final_logits<T>(on_, model_.shape, model_.ends, n, n - 1, 1, many_, rows(all_logits(), sequence, 1));
      check(cudaStreamSynchronize(on_.stream()), "generate");  // `held` and `prompt` have been read
    }
    auto const held = static_cast<std::int32_t>(count);
    copy_to_device(on_.stream(), &held, 1, lengths_.data() + sequence);
    check(cudaStreamSynchronize(on_.stream()), "generate");
    held_[static_cast<std::size_t>(sequence)] = count;
    ended_[static_cast<std::size_t>(sequence)] = 0;
  }

  /// Nobody reads on in this text: it goes along in step, and no sliding window holds it, until the next prompt.
  void end(index_t sequence) {
    check_sequence(sequence);
    ended_[static_cast<std::size_t>(sequence)] = 1;
  }

  /// Draws the next token of every sequence from its logits, on the device.
  void draw() {
    draw_tokens(on_, columns(as_const(all_logits()), 0, model_.vocabulary()), drawn_, step_.data(), tokens_.data());
  }
  /// The next tokens, drawn elsewhere. Throws `error` unless there is one of the vocabulary for every sequence.
  void set_tokens(std::vector<std::int32_t> const& tokens) {
    expects_equal(static_cast<index_t>(tokens.size()), sequences(), "generate", "tokens");
    for (std::int32_t const id : tokens) check_id(id);
    copy_to_device(on_.stream(), tokens.data(), tokens_.size(), tokens_.data());
    check(cudaStreamSynchronize(on_.stream()), "generate");
  }
  /// Appends the tokens to their texts and makes the logits behind them. Enqueued, not waited for; from the second step on one
  /// graph, but on the null stream, which cannot be captured, kernel by kernel. Throws `error` when a cache is full, and takes no
  /// step then.
  void step() {
    for (std::size_t s = 0; s < held_.size(); ++s) {
      if (held_[s] >= cache_.capacity())
        throw error("generate: the cache is full: expected at most " + std::to_string(cache_.capacity()) + " tokens");
      if (ended_[s] == 0) check_window(held_[s] + 1);
    }
    for (index_t& length : held_) ++length;
    if (!once_ || !can_be_captured(on_.stream())) {  // the first time plainly: libraries make their handles, pools grow
      once_ = true;
      return enqueue_step();
    }
    if (!captured_) captured_ = captured_work(on_.stream(), [this] { enqueue_step(); });
    captured_.run(on_.stream());
  }

  /// The tokens that were drawn last. Waits.
  [[nodiscard]] std::vector<std::int32_t> tokens() const {
    std::vector<std::int32_t> drawn(static_cast<std::size_t>(tokens_.size()));
    copy_to_host(on_.stream(), tokens_.data(), tokens_.size(), drawn.data());
    return drawn;
  }
  /// The logits of all sequences: [sequences, vocabulary]. Waits.
  [[nodiscard]] tensor<float, 2> logits() const {
    index_t const width = model_.logit_columns();
    std::vector<float> padded(static_cast<std::size_t>(sequences() * width));
    copy_to_host(on_.stream(), logits_.data(), logits_.size(), padded.data());
    tensor<float, 2> values(sequences(), model_.vocabulary());
    for (index_t s = 0; s < sequences(); ++s)
      std::copy_n(padded.data() + s * width, model_.vocabulary(), &values(s, 0));
    return values;
  }

 private:
  void check_sequence(index_t sequence) const {
    if (sequence < 0 || sequence >= sequences())
      throw error("generate: sequence: expected 0 .. " + std::to_string(sequences() - 1) + ", found " +
                  std::to_string(sequence));
  }
  void check_id(index_t id) const {
    if (id < 0 || id >= model_.vocabulary())
      throw error("generate: expected an id below " + std::to_string(model_.vocabulary()) + ", found " +
                  std::to_string(id));
  }
  void check_window(index_t length) const {
    index_t const window = model_.config.sliding_window;
    if (window > 0 && length > window)
      throw error("generate: sequences of " + std::to_string(length) +
                  " tokens: expected at most sliding_window = " + std::to_string(window));
  }
  [[nodiscard]] device_matrix<float> all_logits() const { return logits_.matrix(sequences(), model_.logit_columns()); }
  void enqueue_step() {
    index_t const n = sequences();
    context::overlapping const while_enqueued(on_, overlaps_ && n <= product_limits{}.few);
    forward<T>(on_, model_, tokens_.data(), n, {lengths_.data(), 1}, cache_, 0, attention_, one_);
    final_logits<T>(on_, model_.shape, model_.ends, n, 0, n, one_, all_logits());
    launch(on_.stream(), {dim3(blocks_for(ceil_div(n, 256))), 256, 0}, detail::count_step, lengths_.data(),
           static_cast<int>(n), step_.data());
  }

  context& on_;
  device_model<T> const& model_;
  draw_options drawn_;
  device_cache<T> cache_;
  attention_workspace attention_;
  layer_workspace<T> one_, many_;
  device_buffer<std::int32_t> tokens_, prompt_, lengths_, step_;
  device_buffer<float> logits_;
  std::vector<index_t> held_;
  std::vector<char> ended_;
  captured_work captured_{};
  bool once_ = false, overlaps_ = false;
};

/// slimtrim::generate on the device. Greedy and plain temperature draws stay there; with top_k or top_p the logits come
/// to the host for each token. Results are the same on every run of one kind of device; activations are T, so they may
/// differ from the host's.
template <half_precision T>
[[nodiscard]] std::vector<std::vector<std::uint32_t>> generate(context& on, device_model<T> const& m,
                                                               std::span<std::vector<std::uint32_t> const> prompts,
                                                               generate_options const& options,
                                                               token_callback const& on_token = {}) {
  expects(options.length >= 0, "generate", "length: expected a count >= 0");
  std::vector<std::vector<std::uint32_t>> results(prompts.size());
  if (options.length == 0 || prompts.empty()) return results;
  auto const count = static_cast<index_t>(prompts.size());
  std::size_t longest = 0;
  for (auto const& prompt : prompts) longest = std::max(longest, prompt.size());
  bool const on_host = options.sampling.temperature > 0 && (options.sampling.top_k > 0 || options.sampling.top_p < 1);
  sampler draw(options.sampling);
  device_generation<T> state(on, m, count, static_cast<index_t>(longest) + options.length,
                             {options.sampling.temperature, options.sampling.seed, options.first_sequence});
  for (index_t s = 0; s < count; ++s) state.prefill(s, prompts[static_cast<std::size_t>(s)]);
  std::vector<char> running(prompts.size(), 1);
  for (index_t step = 0;; ++step) {
    std::vector<std::int32_t> next(prompts.size(), 0);
    if (on_host) {
      tensor<float, 2> const logits = state.logits();
      for (index_t s = 0; s < count; ++s)
        if (running[static_cast<std::size_t>(s)] != 0)
          next[static_cast<std::size_t>(s)] = static_cast<std::int32_t>(
              draw(row(as_const(logits.view()), s), options.first_sequence + static_cast<std::uint64_t>(s),
                   static_cast<std::uint64_t>(step)));
      state.set_tokens(next);
    } else {
      state.draw();
      next = state.tokens();
    }
    on.synchronise();  // a logit that is not a number shows here
    bool any = false;
    for (std::size_t s = 0; s < running.size(); ++s) {
      if (running[s] == 0) continue;
      auto const token = static_cast<std::uint32_t>(next[s]);
      results[s].push_back(token);
      bool const stop =
          std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) != options.stop_tokens.end();
      bool const wants_more = !on_token || on_token(static_cast<index_t>(s), token);
      if (stop || !wants_more || step + 1 == options.length) {
        running[s] = 0;
        state.end(static_cast<index_t>(s));
      }
      any = any || running[s] != 0;
    }
    if (!any) return results;
    state.step();
  }
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
