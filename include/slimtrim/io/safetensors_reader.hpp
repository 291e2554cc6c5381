// One safetensors file: names to shapes and bytes.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/mapped_file.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/safetensors_header.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// The tensor called `name` in a list sorted by name, or null.
[[nodiscard]] inline tensor_info const* find_tensor(std::vector<tensor_info> const& tensors, std::string_view name) {
  auto const at = std::lower_bound(tensors.begin(), tensors.end(), name,
                                   [](tensor_info const& tensor, std::string_view key) { return tensor.name < key; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

/// Refuses to read bytes of `tensor` as `T` unless that is their type.
template <class T>
void require_type(tensor_info const& tensor, std::string const& place) {
  static_assert(dtype_of<T> != dtype::unknown, "slimtrim: this C++ type stores no safetensors type");
  if (tensor.type != dtype_of<T>)
    throw input_error(place, "tensor '" + printable(tensor.name) + "': expected " +
                                 std::string(dtype_name(dtype_of<T>)) + ", found " +
                                 printable(type_name_of(tensor), 64));
}

/// The mapped bytes of `tensor` as elements. A file may place them at an odd address: then only copying is possible.
template <class T>
[[nodiscard]] std::span<T const> mapped_elements(tensor_info const& tensor, std::span<std::byte const> bytes,
                                                 std::string const& place) {
  require_type<T>(tensor, place);
  if (bytes.empty()) return {};
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) != 0)
    throw input_error(place, "tensor '" + printable(tensor.name) + "': expected data aligned to " +
                                 std::to_string(alignof(T)) + " bytes, found offset " + std::to_string(tensor.offset));
  return {reinterpret_cast<T const*>(bytes.data()), bytes.size() / sizeof(T)};
}

/// Byte range `[offset, offset + length)` of `tensor` must lie inside it.
inline void require_inside(tensor_info const& tensor, std::uint64_t offset, std::uint64_t length) {
  if (offset > tensor.bytes || length > tensor.bytes - offset)
    throw error("tensor '" + printable(tensor.name) + "': bytes " + std::to_string(offset) + " + " +
                std::to_string(length) + ": expected inside " + std::to_string(tensor.bytes));
}

}  // namespace detail

/// A validated safetensors file, mapped. Moves keep spans and `tensor_info` references valid.
class safetensors_reader {
 public:
  /// Opens a file that the user named. Throws as `read_safetensors_header`.
  explicit safetensors_reader(std::filesystem::path const& path, safetensors_read_options options = {})
      : safetensors_reader(input_file::open(path), options) {}

  explicit safetensors_reader(input_file file, safetensors_read_options options = {})
      : header_(read_safetensors_header(file, options)), mapping_(std::move(file)) {}

  /// All tensors, sorted by name.
  [[nodiscard]] std::vector<tensor_info> const& tensors() const noexcept { return header_.tensors; }
  [[nodiscard]] safetensors_metadata const& metadata() const noexcept { return header_.metadata; }
  [[nodiscard]] std::uint64_t data_bytes() const noexcept { return header_.data_bytes; }
  [[nodiscard]] input_file const& file() const noexcept { return mapping_.file(); }

  /// The tensor called `name`, or null. O(log n).
  [[nodiscard]] tensor_info const* find(std::string_view name) const {
    return detail::find_tensor(header_.tensors, name);
  }
  /// The tensor called `name`; throws `input_error` when the file has none.
  [[nodiscard]] tensor_info const& at(std::string_view name) const {
    if (tensor_info const* const tensor = find(name)) return *tensor;
    throw input_error(file().place(), "tensor '" + printable(name) + "': expected, not found");
  }

  /// The tensor's bytes in the mapping: no copy, read from disk when touched (see `mapped_file` about SIGBUS).
  [[nodiscard]] std::span<std::byte const> bytes(tensor_info const& tensor) const {
    if (tensor.bytes == 0) return {};
    return mapping_.bytes().subspan(static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.bytes));
  }

  /// The tensor's elements in the mapping. Throws `input_error` when the type differs or the data is misaligned.
  template <class T>
  [[nodiscard]] std::span<T const> elements(tensor_info const& tensor) const {
    return detail::mapped_elements<T>(tensor, bytes(tensor), file().place());
  }

  /// Copies `out.size()` bytes from byte `offset` of the tensor, by pread: constant memory, never SIGBUS.
  void read(tensor_info const& tensor, std::uint64_t offset, std::span<std::byte> out) const {
    detail::require_inside(tensor, offset, out.size());
    file().read_at(tensor.offset + offset, out);
  }

  /// A copy of the tensor's elements. Throws `input_error` when the type differs.
  template <class T>
  [[nodiscard]] std::vector<T> load(tensor_info const& tensor) const {
    detail::require_type<T>(tensor, file().place());
    std::vector<T> out(static_cast<std::size_t>(tensor.bytes) / sizeof(T));
    read(tensor, 0, std::as_writable_bytes(std::span<T>(out)));
    return out;
  }

  /// Takes the tensor's pages out of memory again.
  void release(tensor_info const& tensor) const noexcept { mapping_.release(tensor.offset, tensor.bytes); }
  /// Asks the system to start reading the tensor.
  void prefetch(tensor_info const& tensor) const noexcept { mapping_.prefetch(tensor.offset, tensor.bytes); }

 private:
  safetensors_header header_;
  mapped_file mapping_;
};

}  // namespace v0
}  // namespace slimtrim
