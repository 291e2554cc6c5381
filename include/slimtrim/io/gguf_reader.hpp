// Reading the names of a GGUF file: everything but the data, checked in full before anything is used.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/gguf_type.hpp>
#include <slimtrim/io/gguf_value.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/safetensors_header.hpp>  // tensor_info

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A validated file. `tensors` are in file order, with absolute offsets; `type_name` is the type's name.
struct gguf_header {
  std::uint32_t version = 3;
  gguf_metadata metadata;
  std::vector<tensor_info> tensors;
  std::uint64_t alignment = 32;
  std::uint64_t data_offset = 0;

  /// The tensor called `name`, or null.
  [[nodiscard]] tensor_info const* find(std::string_view name) const {
    for (tensor_info const& tensor : tensors)
      if (tensor.name == name) return &tensor;
    return nullptr;
  }
};

namespace detail {

// Takes values one after another from the front of a file, through a buffer.
class gguf_cursor {
 public:
  explicit gguf_cursor(input_file const& file) : file_(file) {}

  [[nodiscard]] std::uint64_t position() const { return begin_ + used_; }
  [[nodiscard]] std::uint64_t remaining() const { return file_.size() - position(); }
  [[noreturn]] void fail(std::string const& message) const { throw input_error(file_.place(), message); }

  void take(std::span<std::byte> out, std::string const& what) {
    if (out.size() > remaining())
      fail(what + ": expected " + std::to_string(out.size()) + " bytes at " + std::to_string(position()) +
           ", found only " + std::to_string(remaining()));
    while (!out.empty()) {
      if (used_ == buffer_.size()) refill();
      std::size_t const part = std::min(out.size(), buffer_.size() - used_);
      std::memcpy(out.data(), buffer_.data() + used_, part);
      used_ += part;
      out = out.subspan(part);
    }
  }
  template <class T>
  [[nodiscard]] T number(std::string const& what) {
    T value{};
    take(std::as_writable_bytes(std::span<T, 1>(&value, 1)), what);
    return value;
  }
  [[nodiscard]] bool boolean(std::string const& what) {
    auto const value = number<std::uint8_t>(what);
    if (value > 1) fail(what + ": expected 0 or 1, found " + std::to_string(value));
    return value == 1;
  }
  [[nodiscard]] std::string string(std::string const& what) {
    auto const length = number<std::uint64_t>(what);
    if (length > remaining())
      fail(what + ": expected a string inside the file, found one of " + std::to_string(length) + " bytes");
    std::string text(static_cast<std::size_t>(length), '\0');
    take(std::as_writable_bytes(std::span<char>(text)), what);
    return text;
  }

 private:
  void refill() {
    begin_ += buffer_.size();
    used_ = 0;
    buffer_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(std::uint64_t{1} << 16, file_.size() - begin_)));
    file_.read_at(begin_, buffer_);
  }

  input_file const& file_;
  std::vector<std::byte> buffer_;
  std::uint64_t begin_ = 0;  // of the buffer, in the file
  std::size_t used_ = 0;
};

template <std::size_t Type>
gguf_array take_gguf_array(gguf_cursor& from, std::uint64_t count, std::string const& what) {
  using values = std::variant_alternative_t<Type, gguf_array>;
  values items;
  for (std::uint64_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<values, std::vector<std::string>>) {
      items.push_back(from.string(what));
    } else if constexpr (std::is_same_v<values, std::vector<bool>>) {
      items.push_back(from.boolean(what));
    } else if constexpr (!std::is_same_v<values, std::monostate>) {
      items.push_back(from.number<typename values::value_type>(what));
    }
  }
  return items;
}

[[nodiscard]] inline gguf_value take_gguf_value(gguf_cursor& from, std::uint32_t type, std::string const& what) {
  switch (type) {
    case 0:
      return from.number<std::uint8_t>(what);
    case 1:
      return from.number<std::int8_t>(what);
    case 2:
      return from.number<std::uint16_t>(what);
    case 3:
      return from.number<std::int16_t>(what);
    case 4:
      return from.number<std::uint32_t>(what);
    case 5:
      return from.number<std::int32_t>(what);
    case 6:
      return from.number<float>(what);
    case 7:
      return from.boolean(what);
    case 8:
      return from.string(what);
    case 10:
      return from.number<std::uint64_t>(what);
    case 11:
      return from.number<std::int64_t>(what);
    case 12:
      return from.number<double>(what);
    case 9:
      break;
    default:
      from.fail(what + ": expected a type below 13, found " + std::to_string(type));
  }
  auto const element = from.number<std::uint32_t>(what);
  auto const count = from.number<std::uint64_t>(what);
  constexpr std::uint64_t least[13] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  if (element >= 13 || element == 9)
    from.fail(what + ": expected an array of numbers or strings, found one of type " + std::to_string(element));
  if (count > from.remaining() / least[element])
    from.fail(what + ": expected an array inside the file, found one of " + std::to_string(count) + " elements");
  switch (element) {
    case 0:
      return take_gguf_array<0>(from, count, what);
    case 1:
      return take_gguf_array<1>(from, count, what);
    case 2:
      return take_gguf_array<2>(from, count, what);
    case 3:
      return take_gguf_array<3>(from, count, what);
    case 4:
      return take_gguf_array<4>(from, count, what);
    case 5:
      return take_gguf_array<5>(from, count, what);
    case 6:
      return take_gguf_array<6>(from, count, what);
    case 7:
      return take_gguf_array<7>(from, count, what);
    case 8:
      return take_gguf_array<8>(from, count, what);
    case 10:
      return take_gguf_array<10>(from, count, what);
    case 11:
      return take_gguf_array<11>(from, count, what);
    default:
      return take_gguf_array<12>(from, count, what);
  }
}

// Name, type and shape; the offset is as in the file.
[[nodiscard]] inline tensor_info take_gguf_tensor(gguf_cursor& from, std::string const& what) {
  tensor_info tensor;
  tensor.name = from.string(what);
  std::string const where = "tensor '" + printable(tensor.name) + "': ";
  if (tensor.name.empty() || tensor.name.size() > 63) from.fail(where + "name: expected 1 to 63 bytes");
  auto const dimensions = from.number<std::uint32_t>(where + "shape");
  if (dimensions < 1 || dimensions > 4)
    from.fail(where + "shape: expected 1 to 4 dimensions, found " + std::to_string(dimensions));
  for (std::uint32_t d = 0; d < dimensions; ++d) {
    auto const extent = from.number<std::uint64_t>(where + "shape");
    if (extent > static_cast<std::uint64_t>(INT64_MAX)) from.fail(where + "shape: expected extents below 2^63");
    tensor.shape.insert(tensor.shape.begin(), static_cast<index_t>(extent));
  }
  auto const number = from.number<std::uint32_t>(where + "type");
  gguf_type_row const* const type = find_gguf_type(number);
  if (type == nullptr) from.fail(where + "type: expected a known one, found " + std::to_string(number));
  tensor.type_name = type->name;
  auto const bytes = gguf_bytes(*type, tensor.shape);
  if (!bytes)
    from.fail(where + "shape: expected rows of whole blocks of " + std::to_string(type->elements) +
              " in less than 2^64 bytes");
  tensor.bytes = *bytes;
  tensor.offset = from.number<std::uint64_t>(where + "offset");
  return tensor;
}

}  // namespace detail

/// Reads and checks everything but the data: magic and version (2 or 3), every length inside the file, keys and names
/// once, known types, whole blocks, each tensor right behind the one before it (padded), all data inside the file.
/// Memory in proportion to the file. Throws `input_error` naming the file and the key or tensor.
[[nodiscard]] inline gguf_header read_gguf_header(input_file const& file) {
  detail::gguf_cursor from(file);
  gguf_header header;
  auto const magic = from.number<std::uint32_t>("magic");
  if (magic != 0x46554747) from.fail("expected the magic bytes 'GGUF'");
  header.version = from.number<std::uint32_t>("version");
  if (header.version != 2 && header.version != 3)
    from.fail("version: expected 2 or 3, found " + std::to_string(header.version));
  auto const tensors = from.number<std::uint64_t>("number of tensors");
  auto const keys = from.number<std::uint64_t>("number of keys");
  std::unordered_set<std::string> seen;
  for (std::uint64_t i = 0; i < keys; ++i) {
    std::string key = from.string("key " + std::to_string(i));
    std::string const what = "key '" + printable(key) + "'";
    if (key.empty() || !seen.insert(key).second) from.fail(what + ": expected once and not empty");
    auto const type = from.number<std::uint32_t>(what);
    header.metadata.emplace_back(std::move(key), detail::take_gguf_value(from, type, what));
  }
  for (auto const& [key, value] : header.metadata) {
    if (key != "general.alignment") continue;
    auto const* const stated = std::get_if<std::uint32_t>(&value);
    if (stated == nullptr || *stated == 0 || (*stated & (*stated - 1)) != 0)
      from.fail("key 'general.alignment': expected a power of two");
    header.alignment = *stated;
  }
  seen.clear();
  for (std::uint64_t i = 0; i < tensors; ++i) {
    header.tensors.push_back(detail::take_gguf_tensor(from, "tensor " + std::to_string(i)));
    if (!seen.insert(header.tensors.back().name).second)
      from.fail("tensor '" + printable(header.tensors.back().name) + "': expected once, found twice");
  }
  auto const padded = [&](std::uint64_t bytes) {
    return (bytes + header.alignment - 1) / header.alignment * header.alignment;
  };
  header.data_offset = padded(from.position());
  std::uint64_t next = 0;
  for (tensor_info& tensor : header.tensors) {
    std::string const where = "tensor '" + printable(tensor.name) + "': ";
    if (tensor.offset != next)
      from.fail(where + "offset: expected " + std::to_string(next) + ", found " + std::to_string(tensor.offset));
    if (header.data_offset > file.size() || tensor.offset > file.size() - header.data_offset ||
        tensor.bytes > file.size() - header.data_offset - tensor.offset)
      from.fail(where + "expected its " + std::to_string(tensor.bytes) + " bytes inside the file");
    next = padded(tensor.offset + tensor.bytes);
    tensor.offset += header.data_offset;
  }
  return header;
}

}  // namespace v0
}  // namespace slimtrim
