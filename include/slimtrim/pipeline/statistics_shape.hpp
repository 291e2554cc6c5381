// The shape of the model that a statistics file is about, read from the file itself: for merging and showing statistics
// where the model is not at hand.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/safetensors.hpp>
#include <slimtrim/model/model_config.hpp>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// The number in "layers.<number>.<quantity>"; the name shrinks to the quantity.
[[nodiscard]] inline std::optional<index_t> take_layer(std::string_view& name) {
  constexpr std::string_view prefix = "layers.";
  if (name.substr(0, prefix.size()) != prefix) return std::nullopt;
  index_t layer = 0;
  char const* const begin = name.data() + prefix.size();
  auto const end = std::from_chars(begin, name.data() + name.size(), layer);
  if (end.ec != std::errc() || layer < 0 || end.ptr == name.data() + name.size() || *end.ptr != '.')
    return std::nullopt;
  name.remove_prefix(static_cast<std::size_t>(end.ptr + 1 - name.data()));
  return layer;
}

}  // namespace detail

/// As much of a model's dimensions as its statistics depend on: layers with their experts and widths, and the width of
/// the residual stream. What it makes of a strange file, `load_statistics` refuses.
/// Throws `input_error` when the file cannot be read or has no layers.
[[nodiscard]] inline model_config statistics_shape(std::filesystem::path const& path) {
  constexpr index_t most_layers = 10000;
  safetensors_reader const reader(path);
  model_config config;
  for (tensor_info const& tensor : reader.tensors()) {
    std::string_view quantity = tensor.name;
    auto const number = detail::take_layer(quantity);
    if (!number) continue;
    if (*number >= most_layers)
      throw input_error(reader.file().place(), "tensor '" + printable(tensor.name) + "': expected at most " +
                                                   std::to_string(most_layers) + " layers");
    if (*number >= config.layer_count()) config.layers.resize(static_cast<std::size_t>(*number) + 1);
    layer_config& layer = config.layers[static_cast<std::size_t>(*number)];
    bool const is_list = tensor.shape.size() == 2, is_table = tensor.shape.size() == 3;
    if (quantity == "router.count" && is_list) layer.experts = tensor.shape[0];
    if (quantity == "outputs.sum" && is_table) config.hidden = tensor.shape[1];
    if (quantity == "neurons.square" && is_table) layer.intermediate = tensor.shape[1];
  }
  if (config.layers.empty())
    throw input_error(reader.file().place(), "expected a statistics file with layers, found none");
  return config;
}

}  // namespace v0
}  // namespace slimtrim
