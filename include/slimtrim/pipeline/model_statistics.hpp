// Everything that calibration passes have told about one model: one accumulator per layer, and of which model, in which
// window length and from which windows.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/pipeline/fingerprint.hpp>
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/statistics/block_similarity.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Names a checkpoint by config.json, the names, types and shapes of its tensors, and the first and last 4 KiB of each.
[[nodiscard]] inline std::string fingerprint_of(checkpoint const& files) {
  constexpr std::uint64_t sample = 4096;
  fingerprint_builder builder;
  builder.add(files.config().dump());
  std::vector<std::byte> bytes(static_cast<std::size_t>(sample));
  for (tensor_info const& tensor : files.tensors()) {
    builder.add(tensor.name);
    builder.add(type_name_of(tensor));
    builder.add(std::span<index_t const>(tensor.shape));
    auto const part = std::span(bytes).first(static_cast<std::size_t>(std::min(sample, tensor.bytes)));
    files.read(tensor, 0, part);
    builder.add(std::span<std::byte const>(part));
    files.read(tensor, tensor.bytes - part.size(), part);
    builder.add(std::span<std::byte const>(part));
  }
  return builder.text();
}

/// Layers are those of the checkpoint, experts numbered as in it; layers without experts have statistics for 0 experts.
struct model_statistics {
  std::string model{};             ///< fingerprint of the checkpoint
  index_t sequence = 0;            ///< tokens of one window
  std::vector<std::string> windows{};  ///< fingerprints of the windows, sorted; their contents decide, not their file
  std::vector<layer_statistics> layers{};
  std::optional<block_similarity> blocks{};  ///< the table of all runs of blocks, when it was asked for

  [[nodiscard]] index_t tokens() const { return static_cast<index_t>(windows.size()) * sequence; }
  [[nodiscard]] layer_statistics const& layer(index_t i) const { return layers[static_cast<std::size_t>(i)]; }
  /// The fewest tokens that any expert of any layer got; 0 for a model without experts.
  [[nodiscard]] index_t coverage() const {
    double fewest = -1;
    for (layer_statistics const& each : layers)
      if (each.experts() > 0 && (fewest < 0 || each.router.coverage() < fewest)) fewest = each.router.coverage();
    return static_cast<index_t>(std::max(fewest, 0.0));
  }

  /// Adds the windows of `other`: exact, in any order. Throws `input_error` when models, window lengths or kinds of
  /// tables differ, or a window is in both.
  void merge(model_statistics const& other, std::string const& place) {
    if (other.model != model)
      throw input_error(place, "field 'model': expected statistics of model " + model + ", found " + other.model);
    if (other.sequence != sequence)
      throw input_error(place, "field 'sequence': expected windows of " + std::to_string(sequence) + " tokens, found " +
                                   std::to_string(other.sequence));
    bool same = other.layers.size() == layers.size() && other.blocks.has_value() == blocks.has_value();
    for (std::size_t i = 0; same && i < layers.size(); ++i)
      same = other.layers[i].outputs.has_value() == layers[i].outputs.has_value() &&
             other.layers[i].neurons.has_value() == layers[i].neurons.has_value();
    if (!same)
      throw input_error(place, "expected the same tables, found others (calibrate both parts with the same options)");
    std::vector<std::string> both;
    std::set_intersection(windows.begin(), windows.end(), other.windows.begin(), other.windows.end(),
                          std::back_inserter(both));
    if (!both.empty())
      throw input_error(place, "expected windows that are not counted yet, found " + std::to_string(both.size()) +
                                   " that are (the same text in both parts?)");
    for (std::size_t i = 0; i < layers.size(); ++i) layers[i].merge(other.layers[i]);
    if (blocks) blocks->merge(*other.blocks);
    std::vector<std::string> all;
    std::merge(windows.begin(), windows.end(), other.windows.begin(), other.windows.end(), std::back_inserter(all));
    windows = std::move(all);
  }
};

struct statistics_tables {
  bool outputs = true;  ///< per-channel means and variances of expert outputs
  bool neurons = true;  ///< energies of intermediate neurons
  bool blocks = false;  ///< similarities around every run of blocks; holds all layers' streams of a chunk of windows
  friend bool operator==(statistics_tables const&, statistics_tables const&) = default;
};

/// Statistics of no window yet.
[[nodiscard]] inline model_statistics empty_statistics(model_config const& config, std::string fingerprint,
                                                       index_t sequence, statistics_tables const& tables) {
  model_statistics result;
  result.model = std::move(fingerprint);
  result.sequence = sequence;
  for (layer_config const& layer : config.layers) {
    layer_statistics_options options;
    options.experts = layer.experts;
    options.hidden = config.hidden;
    options.intermediate = layer.intermediate;
    options.outputs = tables.outputs;
    options.neurons = tables.neurons;
    result.layers.emplace_back(options);
  }
  if (tables.blocks) result.blocks.emplace(config.layer_count());
  return result;
}

}  // namespace v0
}  // namespace slimtrim
