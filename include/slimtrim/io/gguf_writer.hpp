// Writing one GGUF file, version 3: metadata, names, types and shapes are known first, the data comes later in any
// order.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/gguf_type.hpp>
#include <slimtrim/io/gguf_value.hpp>
#include <slimtrim/io/planned_writer.hpp>
#include <slimtrim/io/printable.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A tensor to be written; `shape` outermost first (the file has it the other way round).
struct gguf_tensor {
  std::string name;
  gguf_type type = gguf_type::float32;
  std::vector<index_t> shape;
};

/// Fills a file that `plan_gguf` planned.
using gguf_writer = planned_writer;

inline constexpr std::uint64_t gguf_alignment = 32;
/// The longest name of a tensor that engines take, in bytes.
inline constexpr std::size_t gguf_name_limit = 63;

namespace detail {

// Appends values as the file has them: little-endian, strings behind their length.
class gguf_text {
 public:
  template <class T>
  requires std::is_arithmetic_v<T>
  void put(T value) {
    if constexpr (std::is_same_v<T, bool>) {
      text_ += static_cast<char>(value ? 1 : 0);
    } else {
      char bytes[sizeof(T)];
      std::memcpy(bytes, &value, sizeof(T));
      text_.append(bytes, sizeof(T));
    }
  }
  void put(std::string_view value) {
    put(static_cast<std::uint64_t>(value.size()));
    text_ += value;
  }
  void put(gguf_array const& array) {
    put(static_cast<std::uint32_t>(array.index()));
    std::visit(
        [&](auto const& items) {
          if constexpr (std::is_same_v<std::remove_cvref_t<decltype(items)>, std::monostate>) {
            throw error("gguf: expected no array of arrays");
          } else {
            put(static_cast<std::uint64_t>(items.size()));
            for (auto const& item : items) put_item(item);
          }
        },
        array);
  }
  void pad(std::uint64_t alignment) {
    while (text_.size() % alignment != 0) text_ += '\0';
  }
  [[nodiscard]] std::string take() { return std::move(text_); }
  [[nodiscard]] std::size_t size() const { return text_.size(); }

 private:
  void put_item(std::string const& item) { put(std::string_view(item)); }
  template <class T>
  void put_item(T const& item) {
    put(static_cast<T>(item));
  }

  std::string text_;
};

}  // namespace detail

/// Plans a file: the tensors lie in the order given, each at a multiple of 32. `general.alignment` is not written, as
/// 32 is what readers assume. Throws `error` for a name that is too long or comes twice, a key that comes twice, more
/// than four dimensions or none, and rows that are not whole blocks.
[[nodiscard]] inline planned_layout plan_gguf(gguf_metadata const& metadata, std::vector<gguf_tensor> const& tensors) {
  std::vector<std::string_view> names;
  auto const require_once = [&](char const* what) {
    std::sort(names.begin(), names.end());
    auto const twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end())
      throw error(std::string("gguf: ") + what + " '" + printable(*twice) + "': expected once, found twice");
    names.clear();
  };
  for (auto const& entry : metadata) names.push_back(entry.first);
  require_once("key");
  for (gguf_tensor const& tensor : tensors) names.push_back(tensor.name);
  require_once("tensor");

  detail::gguf_text text;
  text.put(std::uint32_t{0x46554747});  // "GGUF"
  text.put(std::uint32_t{3});
  text.put(static_cast<std::uint64_t>(tensors.size()));
  text.put(static_cast<std::uint64_t>(metadata.size()));
  for (auto const& [key, value] : metadata) {
    text.put(std::string_view(key));
    text.put(static_cast<std::uint32_t>(value.index()));
    std::visit([&](auto const& plain) { text.put(plain); }, value);
  }
  planned_layout layout;
  std::uint64_t end = 0;
  for (gguf_tensor const& tensor : tensors) {
    std::string const where = "gguf: tensor '" + printable(tensor.name) + "': ";
    gguf_type_row const& type = gguf_type_info(tensor.type);
    if (tensor.name.empty() || tensor.name.size() > gguf_name_limit)
      throw error(where + "name: expected 1 to " + std::to_string(gguf_name_limit) + " bytes");
    if (tensor.shape.empty() || tensor.shape.size() > 4) throw error(where + "expected 1 to 4 dimensions");
    auto const bytes = gguf_bytes(type, tensor.shape);
    if (!bytes)
      throw error(where + "expected rows of whole blocks of " + std::to_string(type.elements) +
                  ", in less than 2^64 bytes");
    tensor_info info;
    info.name = tensor.name;
    info.type_name = type.name;
    info.shape = tensor.shape;
    info.bytes = *bytes;
    info.offset = end;
    text.put(std::string_view(tensor.name));
    text.put(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent)
      text.put(static_cast<std::uint64_t>(*extent));
    text.put(type.number);
    text.put(end);
    auto const next = checked_add(end, *bytes);
    if (!next || *next > std::uint64_t{1} << 62) throw error(where + "expected less than 2^62 bytes in one file");
    end = (*next + gguf_alignment - 1) / gguf_alignment * gguf_alignment;
    layout.tensors.push_back(std::move(info));
  }
  text.pad(gguf_alignment);
  layout.header = text.take();
  for (tensor_info& tensor : layout.tensors) tensor.offset += layout.header.size();
  layout.file_bytes = layout.header.size() + end;
  return layout;
}

}  // namespace v0
}  // namespace slimtrim
