// Synthetic checkpoints of any size: random weights with planted redundancy, for tests and measurements.
//
// Scales are those of a freshly initialised model whose activations keep their size: forward passes stay finite.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/core/progress.hpp>
#include <slimtrim/io/atomic_folder.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/io/sharded_writer.hpp>
#include <slimtrim/io/tokenizer/byte_level.hpp>
#include <slimtrim/model/module.hpp>
#include <slimtrim/pipeline/synth_shape.hpp>
#include <slimtrim/pipeline/synth_values.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct synth_options {
  synth_shape shape{};
  std::uint64_t seed = 0;
  /// Layers that add almost nothing: what they write into the residual stream is 2^-10 of the usual.
  std::vector<index_t> identity_layers{};
  /// In every MoE layer, the last so many experts are copies of the first ones (their router rows are their own).
  index_t duplicate_experts = 0;
  std::uint64_t shard_bytes = 5'000'000'000;
};

struct synth_result {
  index_t parameters = 0;
  std::uint64_t file_bytes = 0;
  index_t files = 0;
};

namespace detail {

/// A tokenizer whose 256 tokens are the bytes.
[[nodiscard]] inline ordered_json byte_tokenizer_json() {
  ordered_json bytes;
  for (unsigned b = 0; b < 256; ++b) {
    std::string token;
    append_utf8(token, byte_level_character(static_cast<unsigned char>(b)));
    bytes[token] = b;
  }
  ordered_json const byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  ordered_json json;
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["added_tokens"] = ordered_json::array();
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = byte_level;
  json["post_processor"] = nullptr;
  json["decoder"] = byte_level;
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false},
                   {"vocab", bytes},
                   {"merges", ordered_json::array()}};
  return json;
}

[[nodiscard]] inline bool is_norm(module_role of) {
  return of == module_role::attention_norm || of == module_role::feed_forward_norm || of == module_role::final_norm;
}

/// Whether the module's output is added to the residual stream.
[[nodiscard]] inline bool writes_residual(module_role of) {
  return of == module_role::output || of == module_role::down || of == module_role::shared_down ||
         of == module_role::dense_down;
}

/// 1 / sqrt(inputs) keeps the size of normalised activations; what is added to the residual stream is smaller by
/// sqrt(2 layers), so that the stream does not grow with depth.
[[nodiscard]] inline float synth_deviation(model_config const& config, module_id id, synth_options const& options) {
  if (id.role == module_role::embedding) return 1.0F;
  std::vector<index_t> const shape = module_shape(config, id);
  if (shape.size() < 2) return 0.0F;
  double deviation = 1 / std::sqrt(static_cast<double>(shape[1]));
  if (writes_residual(id.role)) {
    deviation /= std::sqrt(2.0 * static_cast<double>(config.layer_count()));
    auto const& idle = options.identity_layers;
    if (std::find(idle.begin(), idle.end(), id.layer) != idle.end()) deviation *= 0x1p-10;
  }
  return static_cast<float>(deviation);
}

/// The module whose values `id` has: itself, or the expert that it is a copy of.
[[nodiscard]] inline module_id synth_original(model_config const& config, module_id id, synth_options const& options) {
  bool const of_expert = id.role == module_role::gate || id.role == module_role::up || id.role == module_role::down;
  if (!of_expert) return id;
  index_t const first_copy = config.layer(id.layer).experts - options.duplicate_experts;
  if (id.expert >= first_copy) id.expert -= first_copy;
  return id;
}

inline void check_synth_options(model_config const& config, synth_options const& options) {
  for (index_t const layer : options.identity_layers)
    require_range(layer, "--identity-layers", 0, config.layer_count() - 1);
  require_range(options.duplicate_experts, "--duplicate-experts", 0, options.shape.experts / 2);
  if (options.shard_bytes == 0) throw usage_error("--shard-size: expected at least 1 byte");
}

}  // namespace detail

/// Writes a seeded random bfloat16 checkpoint to `out`: config.json, weights, and a tokenizer of bytes when the
/// vocabulary has room for it. Memory is 16 MiB whatever the size. Byte-identical for any executor.
/// Throws `usage_error` naming the option, `input_error` when `out` exists, `system_failure` when the disk refuses.
inline synth_result synthesize(std::filesystem::path const& out, synth_options const& options,
                               executor* run_on = nullptr, progress_callback const& progress = {}) {
  model_config const config = synth_config(options.shape);
  detail::check_synth_options(config, options);
  std::vector<module_id> modules;
  std::vector<tensor_description> plan;
  synth_result result;
  for_each_module(config, [&](module_id id) {
    tensor_description tensor;
    tensor.name = module_name(*config.family, id);
    tensor.type = dtype::bfloat16;
    tensor.shape = module_shape(config, id);
    auto const elements = element_count(tensor.shape);
    auto const sum = elements ? checked_add(*elements, static_cast<std::uint64_t>(result.parameters)) : std::nullopt;
    if (!sum || *sum > (std::uint64_t{1} << 56)) throw usage_error("synth: expected at most 2^56 parameters");
    result.parameters = static_cast<index_t>(*sum);
    modules.push_back(id);
    plan.push_back(std::move(tensor));
  });

  atomic_folder folder(out);
  folder.write("config.json", json_text(synth_config_json(config, options.shape)));
  if (config.vocabulary >= 256) folder.write("tokenizer.json", json_text(detail::byte_tokenizer_json()));
  sharded_writer writer(folder, std::move(plan), {.most_shard_bytes = options.shard_bytes});
  constexpr std::uint64_t at_once = std::uint64_t{8} << 20;
  std::vector<bfloat16> buffer;
  index_t done = 0;
  for (module_id const id : modules) {
    std::string const name = module_name(*config.family, id);
    std::uint64_t const elements = *element_count(module_shape(config, id));
    module_id const original = detail::synth_original(config, id, options);
    std::uint64_t const stream = name_stream(module_name(*config.family, original));
    float const deviation = detail::synth_deviation(config, id, options);
    for (std::uint64_t at = 0; at < elements; at += at_once) {
      report_progress(progress, "synthesize", done, result.parameters, "parameters");
      buffer.resize(static_cast<std::size_t>(std::min(at_once, elements - at)));
      if (detail::is_norm(id.role))
        std::fill(buffer.begin(), buffer.end(), bfloat16(1.0F));
      else
        fill_random(run_on, buffer, at, options.seed, stream, deviation);
      writer.write(name, 2 * at, std::as_bytes(std::span<bfloat16 const>(buffer)));
      done += static_cast<index_t>(buffer.size());
    }
  }
  report_progress(progress, "synthesize", done, result.parameters, "parameters");
  writer.finish();
  result.file_bytes = writer.file_bytes();
  for (auto const& item : std::filesystem::directory_iterator(folder.path()))
    if (item.path().extension() == ".safetensors") ++result.files;
  folder.commit();
  return result;
}

}  // namespace v0
}  // namespace slimtrim
