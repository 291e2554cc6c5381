// The statistics file: one safetensors file with every sum as 128-bit integers.
//
// Tensor "layers.<i>.<quantity>" has the quantity's extents and a last extent of 2 (I64: low and high half);
// "blocks.<quantity>" likewise; "windows" [n, 16] holds the windows' fingerprints. Metadata names kind, version, model
// and window length. Equal statistics give equal files.
#pragma once

#include <slimtrim/io/atomic_file.hpp>
#include <slimtrim/io/safetensors.hpp>
#include <slimtrim/pipeline/model_statistics.hpp>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

inline constexpr std::string_view statistics_version = "1";

// Calls f(name, exact_array&) on everything that a statistics file holds.
template <class Statistics, class F>
void visit_statistics(Statistics& statistics, F&& f) {
  for (std::size_t i = 0; i < statistics.layers.size(); ++i)
    statistics.layers[i].visit([&](auto& array) { f("layers." + std::to_string(i) + "." + array.name(), array); });
  if (statistics.blocks) statistics.blocks->visit([&](auto& array) { f(array.name(), array); });
}

[[nodiscard]] inline std::vector<index_t> stored_extents(exact_array const& array) {
  std::vector<index_t> extents(array.extents().begin(), array.extents().end());
  extents.push_back(2);
  return extents;
}

[[nodiscard]] inline std::string const* find_metadata(safetensors_metadata const& metadata, std::string_view key) {
  for (auto const& [name, value] : metadata)
    if (name == key) return &value;
  return nullptr;
}

}  // namespace detail

/// Writes a statistics file, atomically. `inputs`: folders that it must not lie in.
inline void save_statistics(model_statistics const& statistics, std::filesystem::path const& out,
                            std::vector<std::filesystem::path> const& inputs = {}) {
  std::vector<tensor_description> tensors;
  detail::visit_statistics(statistics, [&](std::string const& name, exact_array const& array) {
    tensors.push_back({name, dtype::int64, detail::stored_extents(array)});
  });
  auto const count = static_cast<index_t>(statistics.windows.size());
  tensors.push_back({"windows", dtype::uint8, {count, 16}});
  atomic_file file(out, inputs);
  safetensors_writer writer(file.open(),
                            plan_safetensors(tensors, {{"slimtrim.kind", "statistics"},
                                                       {"slimtrim.version", std::string(detail::statistics_version)},
                                                       {"model", statistics.model},
                                                       {"sequence", std::to_string(statistics.sequence)}}));
  detail::visit_statistics(statistics, [&](std::string const& name, exact_array const& array) {
    writer.write(name, std::as_bytes(array.totals()));
  });
  std::vector<std::uint8_t> fingerprints;
  for (std::string const& text : statistics.windows)
    for (std::size_t i = 0; i < 32; i += 2) {
      unsigned value = 0;
      std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
      fingerprints.push_back(static_cast<std::uint8_t>(value));
    }
  writer.write("windows", std::as_bytes(std::span(fingerprints)));
  writer.finish();
  file.commit();
}

/// Reads a statistics file for a model of shape `config`. Throws `input_error` naming file and field when it is not
/// one, has another version, or does not have the model's shape.
[[nodiscard]] inline model_statistics load_statistics(std::filesystem::path const& path, model_config const& config) {
  safetensors_reader const reader(path);
  std::string const place = reader.file().place();
  auto const metadata = [&](std::string_view key) -> std::string const& {
    std::string const* const value = detail::find_metadata(reader.metadata(), key);
    if (value == nullptr)
      throw input_error(place, "field '" + std::string(key) + "': expected in the metadata of a statistics file, not found");
    return *value;
  };
  if (metadata("slimtrim.kind") != "statistics")
    throw input_error(place, "field 'slimtrim.kind': expected statistics, found " + printable(metadata("slimtrim.kind")));
  if (metadata("slimtrim.version") != detail::statistics_version)
    throw input_error(place, "field 'slimtrim.version': expected " + std::string(detail::statistics_version) + ", found " +
                                 printable(metadata("slimtrim.version")));
  index_t sequence = 0;
  std::string const& text = metadata("sequence");
  std::from_chars(text.data(), text.data() + text.size(), sequence);
  if (sequence < 2) throw input_error(place, "field 'sequence': expected a window length, found " + printable(text));
  statistics_tables tables;
  tables.blocks = reader.find("blocks.cosine") != nullptr;
  tables.outputs = tables.neurons = false;
  for (tensor_info const& tensor : reader.tensors()) {
    tables.outputs = tables.outputs || tensor.name.find(".outputs.") != std::string::npos;
    tables.neurons = tables.neurons || tensor.name.find(".neurons.") != std::string::npos;
  }
  model_statistics statistics = empty_statistics(config, metadata("model"), sequence, tables);
  std::size_t expected = 1;
  detail::visit_statistics(statistics, [&](std::string const& name, exact_array& array) {
    ++expected;
    tensor_info const& tensor = reader.at(name);
    if (tensor.type != dtype::int64 || tensor.shape != detail::stored_extents(array))
      throw input_error(place, "tensor '" + name + "': expected the shape of this model's statistics, found another " +
                                   "(statistics of another model?)");
    reader.read(tensor, 0, std::as_writable_bytes(array.totals()));
  });
  if (reader.tensors().size() != expected)
    throw input_error(place, "expected statistics of this model, with " + std::to_string(expected) + " tensors, found " +
                                 std::to_string(reader.tensors().size()) + " (statistics of another model?)");
  tensor_info const& windows = reader.at("windows");
  if (windows.type != dtype::uint8 || windows.shape.size() != 2 || windows.shape[1] != 16)
    throw input_error(place, "tensor 'windows': expected U8 [n, 16]");
  auto const bytes = reader.load<std::uint8_t>(windows);
  constexpr std::string_view digits = "0123456789abcdef";
  for (index_t w = 0; w < windows.shape[0]; ++w) {
    std::string fingerprint;
    for (std::size_t i = 0; i < 16; ++i) {
      std::uint8_t const byte = bytes[static_cast<std::size_t>(w) * 16 + i];
      fingerprint += digits[byte >> 4];
      fingerprint += digits[byte & 15];
    }
    statistics.windows.push_back(std::move(fingerprint));
  }
  return statistics;
}

}  // namespace v0
}  // namespace slimtrim
