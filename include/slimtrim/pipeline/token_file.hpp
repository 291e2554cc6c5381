// Token ids from files that hold them already: `.u16`, `.u32` (little-endian, no header) and NumPy's `.npy`.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/printable.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// How a file of ids stores them.
struct token_layout {
  std::uint64_t offset = 0;  ///< of the first id, in bytes
  std::uint64_t count = 0;
  unsigned width = 4;        ///< bytes of one id: 1, 2, 4 or 8
  bool is_signed = false;
};

namespace detail {

/// The text of `'key': value` in the header dictionary of an .npy file, up to the comma or bracket that ends it.
[[nodiscard]] inline std::optional<std::string_view> npy_entry(std::string_view header, std::string_view key) {
  for (char const quote : {'\'', '"'}) {
    std::string const marked = quote + std::string(key) + quote;
    std::size_t at = header.find(marked);
    if (at == header.npos) continue;
    at = header.find_first_not_of(" :", at + marked.size());
    if (at == header.npos) return std::nullopt;
    std::size_t const end = header[at] == '(' ? header.find(')', at) : header.find_first_of(",}", at);
    if (end == header.npos) return std::nullopt;
    return header.substr(at, end - at);
  }
  return std::nullopt;
}

/// Reads the header of NumPy's format, versions 1 to 3.
[[nodiscard]] inline token_layout read_npy_layout(input_file const& file) {
  auto const refuse = [&](std::string const& expected) -> token_layout {
    throw input_error(file.place(), "npy header: expected " + expected);
  };
  std::array<std::byte, 12> start{};
  if (file.size() < start.size()) return refuse("at least 12 bytes");
  file.read_at(0, start);
  if (std::memcmp(start.data(), "\x93NUMPY", 6) != 0) return refuse("the mark of NumPy's format");
  auto const byte = [&](std::size_t i) { return std::to_integer<std::uint64_t>(start[i]); };
  bool const long_form = byte(6) > 1;
  if (byte(6) < 1 || byte(6) > 3) return refuse("version 1, 2 or 3, found " + std::to_string(byte(6)));
  std::uint64_t const size = byte(8) | byte(9) << 8 | (long_form ? byte(10) << 16 | byte(11) << 24 : 0);
  token_layout layout;
  std::uint64_t const begin = long_form ? 12 : 10;
  layout.offset = begin + size;
  if (size > 65536 || layout.offset > file.size()) return refuse("at most 65536 bytes inside the file");
  std::string header(static_cast<std::size_t>(size), ' ');
  file.read_at(begin, std::as_writable_bytes(std::span<char>(header)));

  std::string_view type = npy_entry(header, "descr").value_or("");
  if (type.size() > 2) type = type.substr(1, type.size() - 2);
  static constexpr std::array<std::string_view, 8> types{"|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8"};
  auto const known = std::find(types.begin(), types.end(), type);
  if (known == types.end())
    return refuse("an integer type ('<u2', '<i4' and their like), found '" + printable(type, 40) + "'");
  layout.width = static_cast<unsigned>(type[2] - '0');
  layout.is_signed = type[1] == 'i';

  std::string_view shape = npy_entry(header, "shape").value_or("");
  if (shape.empty() || shape[0] != '(') return refuse("a shape");
  shape.remove_prefix(1);
  layout.count = 1;
  std::size_t extents = 0;
  while (!shape.empty()) {
    std::uint64_t extent = 0;
    auto const end = std::from_chars(shape.data(), shape.data() + shape.size(), extent);
    auto const product = checked_multiply(layout.count, extent);
    if (end.ec != std::errc() || !product) return refuse("whole numbers as shape");
    layout.count = *product;
    ++extents;
    shape.remove_prefix(static_cast<std::size_t>(end.ptr - shape.data()));
    shape.remove_prefix(std::min(shape.find_first_not_of(", "), shape.size()));
  }
  if (extents > 1 && npy_entry(header, "fortran_order").value_or("False") != "False")
    return refuse("rows one after another (fortran_order False)");
  auto const bytes = checked_multiply(layout.count, layout.width);
  if (!bytes || *bytes != file.size() - layout.offset)
    throw input_error(file.place(), "expected " + std::to_string(layout.count) + " ids of " +
                                        std::to_string(layout.width) + " bytes after the header, found " +
                                        std::to_string(file.size() - layout.offset) + " bytes");
  return layout;
}

[[nodiscard]] inline std::uint64_t little_endian(std::byte const* at, unsigned width) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < width; ++i) value |= std::to_integer<std::uint64_t>(at[i]) << (8 * i);
  return value;
}

}  // namespace detail

/// Whether the name says that the file holds ids rather than text.
[[nodiscard]] inline bool is_token_file(std::string_view name) {
  for (std::string_view const ending : {".u16", ".u32", ".npy"})
    if (name.size() > ending.size() && name.substr(name.size() - ending.size()) == ending) return true;
  return false;
}

/// Where the ids of `file` lie. Throws `input_error` when the size does not fit the type.
[[nodiscard]] inline token_layout read_token_layout(input_file const& file) {
  std::string const name = file.path().native();
  if (name.size() > 4 && name.substr(name.size() - 4) == ".npy") return detail::read_npy_layout(file);
  token_layout layout;
  layout.width = name.size() > 4 && name.substr(name.size() - 4) == ".u16" ? 2 : 4;
  if (file.size() % layout.width != 0)
    throw input_error(file.place(), "expected a multiple of " + std::to_string(layout.width) + " bytes, found " +
                                        std::to_string(file.size()));
  layout.count = file.size() / layout.width;
  return layout;
}

/// The first `most` ids of a file (all of them when it has fewer). Reads no more than that.
/// Throws `input_error` for an id that is not below `vocabulary`, with its position.
[[nodiscard]] inline std::vector<std::uint32_t> read_token_file(input_file const& file, std::uint64_t most,
                                                                index_t vocabulary) {
  token_layout const layout = read_token_layout(file);
  std::uint64_t const count = std::min(layout.count, most);
  std::vector<std::uint32_t> ids;
  ids.reserve(static_cast<std::size_t>(count));
  std::vector<std::byte> buffer(std::size_t{1} << 16);
  std::uint64_t const per_read = buffer.size() / layout.width;
  while (ids.size() < count) {
    std::uint64_t const part = std::min(per_read, count - ids.size());
    auto const bytes = std::span(buffer).first(static_cast<std::size_t>(part * layout.width));
    file.read_at(layout.offset + ids.size() * layout.width, bytes);
    for (std::uint64_t i = 0; i < part; ++i) {
      std::uint64_t const id = detail::little_endian(bytes.data() + i * layout.width, layout.width);
      // A negative number read as unsigned is far above any vocabulary.
      if (id >= static_cast<std::uint64_t>(vocabulary)) {
        bool const negative = layout.is_signed && (id >> (8 * layout.width - 1)) != 0;
        throw input_error(file.place(), "id at position " + std::to_string(ids.size()) + ": expected below " +
                                            std::to_string(vocabulary) + " (the vocabulary), found " +
                                            (negative ? "a negative number" : std::to_string(id)));
      }
      ids.push_back(static_cast<std::uint32_t>(id));
    }
  }
  return ids;
}

}  // namespace v0
}  // namespace slimtrim
