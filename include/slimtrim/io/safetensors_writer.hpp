// Writing one safetensors file: all names, types and shapes are known first, the data comes later in any order.
//
// Bytes equal those of the reference library for the same tensors and metadata: tensors sorted by alignment (largest
// first), then by name, header padded with spaces so that the data begins at a multiple of 8.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/dtype.hpp>
#include <slimtrim/io/planned_writer.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/safetensors_header.hpp>  // tensor_description, tensor_info

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

using safetensors_layout = planned_layout;
/// Fills a file that `plan_safetensors` planned.
using safetensors_writer = planned_writer;

namespace detail {

[[nodiscard]] inline std::string json_quoted(std::string_view text) {
  return nlohmann::json(std::string(text)).dump();
}

/// Completes and checks one description: known types get `bytes`, unknown ones must bring them.
inline void settle_description(tensor_description& tensor) {
  std::string const where = "safetensors: tensor '" + printable(tensor.name) + "': ";
  if (!is_utf8(tensor.name)) throw error(where + "name: expected UTF-8");
  if (tensor.name == "__metadata__") throw error(where + "this name is reserved");
  if (tensor.type == dtype::unknown) {
    if (tensor.type_name.empty() || dtype_from_name(tensor.type_name) != dtype::unknown || !is_utf8(tensor.type_name))
      throw error(where + "expected the name of a type that is not known here");
    if (!element_count(tensor.shape)) throw error(where + "shape: expected a product below 2^64");
    return;
  }
  auto const bytes = byte_count(tensor.type, tensor.shape);
  if (!bytes) throw error(where + "shape: expected a whole number of bytes below 2^61");
  if (tensor.bytes != 0 && tensor.bytes != *bytes)
    throw error(where + "expected " + std::to_string(*bytes) + " bytes, found " + std::to_string(tensor.bytes));
  tensor.bytes = *bytes;
}

[[nodiscard]] inline std::string header_entry(tensor_description const& tensor, std::uint64_t begin,
                                              std::uint64_t end) {
  std::string text = json_quoted(tensor.name) + ":{\"dtype\":" + json_quoted(type_name_of(tensor)) + ",\"shape\":[";
  for (std::size_t i = 0; i < tensor.shape.size(); ++i)
    text += (i == 0 ? "" : ",") + std::to_string(tensor.shape[i]);
  return text + "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

}  // namespace detail

/// Plans a file. `metadata` gets `format: pt` in front when it has no `format`, because loaders refuse files without.
/// Throws `error` for a tensor that the format cannot hold, a name given twice or a header above 100,000,000 bytes.
[[nodiscard]] inline safetensors_layout plan_safetensors(std::vector<tensor_description> tensors,
                                                         safetensors_metadata metadata = {}) {
  for (tensor_description& tensor : tensors) detail::settle_description(tensor);
  std::sort(tensors.begin(), tensors.end(), [](tensor_description const& a, tensor_description const& b) {
    return a.type != b.type ? a.type > b.type : a.name < b.name;
  });
  // Equal names of different types are not neighbours in this order; the sorted list of names finds them.
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (tensor_description const& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  if (auto const twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    throw error("safetensors: tensor '" + printable(*twice) + "': expected once, found twice");
  if (std::none_of(metadata.begin(), metadata.end(), [](auto const& entry) { return entry.first == "format"; }))
    metadata.insert(metadata.begin(), {"format", "pt"});

  safetensors_layout layout;
  std::string text = "{\"__metadata__\":{";
  for (auto const& [key, value] : metadata) {
    if (!is_utf8(key) || !is_utf8(value)) throw error("safetensors: metadata '" + printable(key) + "': expected UTF-8");
    if (text.back() != '{') text += ',';
    text += detail::json_quoted(key) + ":" + detail::json_quoted(value);
  }
  text += '}';
  std::uint64_t end = 0;
  layout.tensors.reserve(tensors.size());
  for (tensor_description& tensor : tensors) {
    std::uint64_t const begin = end;
    auto const sum = checked_add(begin, tensor.bytes);
    if (!sum || *sum > static_cast<std::uint64_t>(INT64_MAX) - 2 * safetensors_header_limit)
      throw error("safetensors: expected less than 2^63 bytes in one file");
    end = *sum;
    text += ',' + detail::header_entry(tensor, begin, end);
    tensor_info info;
    static_cast<tensor_description&>(info) = std::move(tensor);
    info.offset = begin;
    layout.tensors.push_back(std::move(info));
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > safetensors_header_limit)
    throw error("safetensors: header: expected at most " + std::to_string(safetensors_header_limit) + " bytes, found " +
                std::to_string(text.size()));
  for (std::size_t i = 0; i < 8; ++i)
    layout.header += static_cast<char>(static_cast<unsigned char>(text.size() >> (8 * i)));
  layout.header += text;
  for (tensor_info& tensor : layout.tensors) tensor.offset += layout.header.size();
  layout.file_bytes = layout.header.size() + end;
  return layout;
}

}  // namespace v0
}  // namespace slimtrim
