// Everything of the engine but compression.

#include "engine_backend.hpp"

#include <slimtrim/model/prepared_weights.hpp>
#include <slimtrim/pipeline/self_text.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <utility>

namespace cli {

namespace {

using clock = std::chrono::steady_clock;

double seconds_since(clock::time_point begin) { return std::chrono::duration<double>(clock::now() - begin).count(); }

/// Devices keep keys and values in the type of their activations.
void refuse_small_cache(slimtrim::kv_precision cache) {
  if (cache != slimtrim::kv_precision::floating)
    throw slimtrim::usage_error("--kv-cache: expected float with --device cuda");
}

host_backend make_backend(session const& at, device_flags const& flags) {
  if (flags.activations != "float" && flags.activations != "int8")
    throw slimtrim::usage_error("--activations: expected float or int8, found '" + flags.activations + "'");
  if (flags.device == "cuda" && flags.activations == "int8")
    throw slimtrim::usage_error("--activations: expected float with --device cuda, found 'int8'");
#if SLIMTRIM_PROGRAM_SIMD
  slimtrim::simd_options options{.kernels = &best_kernels()};
  if (flags.activations == "int8") options.activations = slimtrim::activation_kind::int8;
  return host_backend(*at.pool, options);
#else
  if (flags.activations == "int8")
    throw slimtrim::usage_error("--activations: expected float (this build has no vector kernels), found 'int8'");
  return host_backend(*at.pool);
#endif
}

/// All that comes from stdin.
std::string standard_input() {
  std::string text;
  for (;;) {
    std::size_t const have = text.size();
    text.resize(have + (std::size_t{1} << 20));
    auto const got = ::read(STDIN_FILENO, text.data() + have, text.size() - have);
    text.resize(have + static_cast<std::size_t>(std::max<decltype(got)>(got, 0)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw slimtrim::system_failure(std::string("stdin: ") + std::strerror(errno));
    if (got == 0) return text;
  }
}

std::unique_ptr<device> make_device(device_flags const& flags) {
  if (flags.device == "cpu") return nullptr;
  if (flags.device != "cuda") throw slimtrim::usage_error("--device: expected cpu or cuda, found '" + flags.device + "'");
  return open_cuda_device();
}

}  // namespace

void device_flags::declare(option_set& options) {
  options.text("--device", device, "Where the model runs: cpu or cuda");
  options.text("--activations", activations, "float, or int8 for speed where weights are quantised");
}

void memory_flags::declare(option_set& options) {
  options.bytes("--memory", bytes,
                "What rows and sums of the text may take: more of it is fewer passes over the weights "
                "[2GiB; with --device cuda 16GiB, or a quarter of the device's]");
}

void cache_flags::declare(option_set& options) {
  options.text("--kv-cache", precision, "How keys and values of past tokens are kept: float, float16 or int8");
}

slimtrim::kv_precision cache_flags::chosen() const {
  if (precision == "float") return slimtrim::kv_precision::floating;
  if (precision == "float16") return slimtrim::kv_precision::float16;
  if (precision == "int8") return slimtrim::kv_precision::int8;
  throw slimtrim::usage_error("--kv-cache: expected float, float16 or int8, found '" + precision + "'");
}

void data_flags::declare(option_set& options, bool required, std::string const& what) {
  options.text("--data", data,
               what + ": text file, .jsonl with text fields, token ids (.u16 .u32 .npy), - (text from stdin), or self (text "
                      "that the model samples from itself)",
               required);
  options.number("--tokens", tokens, "Tokens in all, from 1, a multiple of --seq [every whole window; self has no default]");
  options.number("--seq", sequence, "Tokens of one window, from 2 [2048, or fewer when the model has fewer positions]");
}

engine::engine(session const& at, device_flags const& flags, memory_flags const& memory) : at_(at), memory_(memory.bytes) {
  host_backend on_host = make_backend(at, flags);
  auto on_device = make_device(flags);
  slimtrim::accelerator* const lent = on_device ? &on_device->accelerator() : nullptr;
  if (memory_ == 0)
    memory_ = on_device ? std::min(std::uint64_t{16} << 30, on_device->memory_bytes() / 4) : std::uint64_t{2} << 30;
  state_ = std::make_unique<state>(state{std::move(on_device), program_backend(std::move(on_host), lent)});
}

engine::~engine() = default;

slimtrim::token_windows engine::windows(slimtrim::opened_model const& model, data_flags const& flags) const {
  index_t const positions = model.config.maximum_positions;
  slimtrim::data_options options;
  if (flags.tokens == 0) throw slimtrim::usage_error("--tokens: expected at least 1, found 0 (without it every whole window is taken)");
  options.tokens = flags.tokens.value_or(0);
  options.sequence = flags.sequence.value_or(positions > 1 ? std::min<index_t>(2048, positions) : 2048);
  options.seed = at_.seed;
  if (positions > 1 && options.sequence > positions)
    at_.note("slimtrim: --seq " + std::to_string(options.sequence) + ": the model was made for " + std::to_string(positions) +
             " positions (max_position_embeddings); behind them its predictions mean little");
  auto const generate = [&](index_t windows, index_t sequence, std::uint64_t seed) {
    if (auto* const on_device = state_->on_device.get()) {
      on_device->load(model.config, *model.weights, at_.progress);
      auto const continue_all = [&](auto const& prompts, auto const& choices, auto const& on_token) {
        return on_device->generate(prompts, choices, on_token);
      };
      return slimtrim::sample_text(continue_all, model.config.vocabulary, windows, sequence, seed, at_.progress);
    }
    slimtrim::model const resident = slimtrim::load_model(state_->backend, model.config, *model.weights);
    return slimtrim::sample_text(state_->backend, resident, windows, sequence, seed, at_.progress);
  };
  std::filesystem::path const tokenizer_json = model.files->folder() / "tokenizer.json";
  if (flags.data == "-")
    return slimtrim::windows_of_text(standard_input(), "stdin", options, model.config.vocabulary, tokenizer_json);
  return slimtrim::load_windows(flags.data, options, model.config.vocabulary, tokenizer_json, generate);
}

slimtrim::evaluation engine::evaluate(slimtrim::opened_model const& model, slimtrim::opened_model const* base,
                                      slimtrim::token_windows const& windows) const {
  slimtrim::evaluate_options options;
  options.activation_bytes = activation_bytes();
  options.progress = at_.progress;
  return slimtrim::evaluate(state_->backend, model, base, windows, options);
}

slimtrim::model_statistics engine::calibrate(slimtrim::opened_model const& model,
                                             slimtrim::token_windows const& windows,
                                             slimtrim::statistics_tables const& tables) const {
  slimtrim::calibrate_options options;
  options.activation_bytes = activation_bytes();
  options.tables = tables;
  options.progress = at_.progress;
  return slimtrim::calibrate(state_->backend, model, windows, options);
}

slimtrim::plan engine::decide(slimtrim::recipe const& recipe, slimtrim::decide_inputs const& inputs,
                              slimtrim::decide_options const& options) const {
  slimtrim::decide_options within = options;
  within.activation_bytes = activation_bytes();
  return slimtrim::decide(state_->backend, recipe, inputs, within);
}

std::vector<std::uint32_t> engine::generate(slimtrim::opened_model const& model,
                                            std::vector<std::uint32_t> const& prompt,
                                            slimtrim::generate_options const& options,
                                            std::function<bool(std::uint32_t)> const& on_token) const {
  auto const seen = [&](index_t, std::uint32_t token) { return on_token(token); };
  if (auto* const on_device = state_->on_device.get()) {
    refuse_small_cache(options.cache);
    on_device->load(model.config, *model.weights, at_.progress);
    return on_device->generate(std::span(&prompt, 1), options, seen).front();
  }
  slimtrim::model const resident = slimtrim::load_model(state_->backend, model.config, *model.weights);
  slimtrim::forward_workspace work;
  return slimtrim::generate(state_->backend, resident, prompt, options, work, seen);
}

std::vector<speed> engine::measure(slimtrim::opened_model const& model, std::vector<std::uint32_t> const& prompt,
                                   index_t length, slimtrim::kv_precision cache, index_t rounds,
                                   std::function<void()> const& after_round) const {
  if (auto* const on_device = state_->on_device.get()) {
    refuse_small_cache(cache);
    on_device->load(model.config, *model.weights, at_.progress);
    std::vector<speed> results;
    for (index_t round = 0; round < rounds; ++round) {
      slimtrim::report_progress(at_.progress, "measure", round, rounds, "rounds");
      results.push_back(on_device->measure(prompt, length));
      after_round();
    }
    slimtrim::report_progress(at_.progress, "measure", rounds, rounds, "rounds");
    return results;
  }
  slimtrim::model const resident = slimtrim::load_model(state_->backend, model.config, *model.weights);
  slimtrim::forward_workspace work;
  std::vector<speed> results;
  slimtrim::generate_options options;
  options.length = length + 1;
  options.cache = cache;
  // Once unmeasured, so that weights are in memory; then a prefill (with the one token that it yields), then the rest.
  for (index_t round = 0; round <= rounds; ++round) {
    slimtrim::report_progress(at_.progress, "measure", std::max<index_t>(round - 1, 0), rounds, "rounds");
    clock::time_point const begin = clock::now();
    clock::time_point first = begin;
    bool seen = false;
    (void)slimtrim::generate(state_->backend, resident, prompt, options, work, [&](index_t, std::uint32_t) {
      if (!std::exchange(seen, true)) first = clock::now();
      return true;
    });
    speed one;
    one.prefill_seconds = std::chrono::duration<double>(first - begin).count();
    one.decode_seconds = seconds_since(first);
    if (round == 0) continue;
    results.push_back(one);
    after_round();
  }
  slimtrim::report_progress(at_.progress, "measure", rounds, rounds, "rounds");
  return results;
}

double engine::device_bandwidth() const { return state_->on_device ? state_->on_device->bandwidth() : 0.0; }

std::uint64_t engine::peak_device_bytes() const { return state_->on_device ? state_->on_device->peak_bytes() : 0; }

std::uint64_t peak_resident_bytes() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace cli
