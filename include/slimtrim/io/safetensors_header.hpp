// The header of a safetensors file: what tensors there are and where, believed only after every check.
//
//   u64 little-endian N | N bytes of JSON | data
//
// Nothing is allocated from a declared size, no byte of the data is touched, and nothing of the header is used
// before all of it is consistent: offsets without holes or overlaps, sizes equal to shape times type, end equal to
// the end of the file.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/dtype.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/json_stream.hpp>
#include <slimtrim/io/printable.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What a tensor is, apart from where it lies. `type_name` and `bytes` need to be set only for `dtype::unknown`.
struct tensor_description {
  std::string name;
  dtype type = dtype::unknown;
  std::vector<index_t> shape;
  std::string type_name{};
  std::uint64_t bytes = 0;
};

/// A tensor of a file or checkpoint: `offset` is from the beginning of the file, `shard` counts the files.
struct tensor_info : tensor_description {
  std::uint64_t offset = 0;
  std::uint32_t shard = 0;
};

/// The format's string for the type of `tensor`, also when the type is unknown here.
[[nodiscard]] inline std::string_view type_name_of(tensor_description const& tensor) {
  return tensor.type == dtype::unknown ? std::string_view(tensor.type_name) : dtype_name(tensor.type);
}

using safetensors_metadata = std::vector<std::pair<std::string, std::string>>;

/// A validated header. `tensors` is sorted by name (bytewise).
struct safetensors_header {
  std::vector<tensor_info> tensors;
  safetensors_metadata metadata;
  std::uint64_t data_offset = 0;
  std::uint64_t data_bytes = 0;
};

struct safetensors_read_options {
  /// Accept bytes after the last tensor, which the format forbids but some files have.
  bool lenient = false;
};

/// The format's own limit on the header.
inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;

namespace detail {

/// Collects the entries of a header. Everything that the format does not name is refused, so that a field whose
/// meaning we do not know cannot change the meaning of the data.
class safetensors_header_events final : public json_events {
 public:
  safetensors_header_events(json_source& source, safetensors_header& header)
      : json_events(source), header_(header) {}

  void on_start_object() override {
    if (state_ == state::begin) {
      state_ = state::names;
    } else if (state_ == state::entry) {
      state_ = in_metadata_ ? state::metadata : state::fields;
    } else {
      refuse("an object");
    }
  }
  void on_key(std::string& value) override {
    if (state_ == state::names) {
      in_metadata_ = value == "__metadata__";
      if (in_metadata_ && std::exchange(metadata_seen_, true)) refuse("__metadata__ twice");
      if (!in_metadata_) {
        header_.tensors.emplace_back().name = std::move(value);
        fields_seen_ = 0;
      }
      state_ = state::entry;
    } else if (state_ == state::metadata) {
      header_.metadata.emplace_back(std::move(value), std::string());
      state_ = state::metadata_value;
    } else {
      field_ = value == "dtype" ? 0u : value == "shape" ? 1u : value == "data_offsets" ? 2u : 3u;
      if (field_ == 3 || (fields_seen_ & (1u << field_)) != 0)
        refuse((field_ == 3 ? "'" : "twice '") + printable(value, 80) + "'");
      fields_seen_ |= 1u << field_;
      state_ = state::value;
    }
  }
  void on_string(std::string& value) override {
    if (state_ == state::metadata_value) {
      header_.metadata.back().second = std::move(value);
      state_ = state::metadata;
    } else if (state_ == state::value && field_ == 0) {
      tensor_info& tensor = header_.tensors.back();
      tensor.type = dtype_from_name(value);
      if (value.empty() || value.size() > 64) refuse("'" + printable(value, 80) + "'");
      if (tensor.type == dtype::unknown) tensor.type_name = std::move(value);
      state_ = state::fields;
    } else {
      json_events::on_string(value);
    }
  }
  void on_start_array() override {
    if (state_ != state::value || field_ == 0) refuse("an array");
    state_ = state::numbers;
    offsets_found_ = 0;
  }
  void on_unsigned(std::uint64_t value) override {
    tensor_info* const tensor = header_.tensors.empty() ? nullptr : &header_.tensors.back();
    if (state_ != state::numbers) {
      refuse(std::to_string(value));
    } else if (field_ == 1) {
      if (value > static_cast<std::uint64_t>(PTRDIFF_MAX) || tensor->shape.size() >= most_dimensions)
        refuse(std::to_string(value));
      tensor->shape.push_back(static_cast<index_t>(value));
    } else {
      if (offsets_found_ == 2) refuse("more than two numbers");
      // Kept as begin and end until the whole header is known; `validate` makes an offset and a length of them.
      (offsets_found_++ == 0 ? tensor->offset : tensor->bytes) = value;
    }
  }
  void on_end_array() override {
    if (field_ == 2 && offsets_found_ != 2) refuse(std::to_string(offsets_found_) + " numbers");
    state_ = state::fields;
  }
  void on_end_object() override {
    if (state_ == state::fields && fields_seen_ != 7) refuse("an entry without one of them");
    state_ = state_ == state::names ? state::begin : state::names;
  }

  [[nodiscard]] std::string expectation() const override {
    switch (state_) {
      case state::begin:
        return "expected an object of tensors";
      case state::names:
      case state::entry:
        if (in_metadata_) return "__metadata__: expected one object of strings";
        return where() + "expected an object";
      case state::metadata:
      case state::metadata_value:
        return "__metadata__: expected only strings";
      case state::fields:
        return where() + "expected dtype, shape and data_offsets";
      case state::value:
      case state::numbers:
        break;
    }
    static constexpr std::array<char const*, 4> what{
        "dtype: expected the name of a type",
        "shape: expected an array of at most 64 integers from 0 to 2^63 - 1",
        "data_offsets: expected two integers from 0 to 2^64 - 1",
        "expected once each of dtype, shape and data_offsets",
    };
    return where() + what[field_];
  }

 private:
  enum class state { begin, names, entry, metadata, metadata_value, fields, value, numbers };
  static constexpr std::size_t most_dimensions = 64;

  [[nodiscard]] std::string where() const {
    return header_.tensors.empty() ? std::string()
                                   : "tensor '" + printable(header_.tensors.back().name) + "': ";
  }

  safetensors_header& header_;
  state state_ = state::begin;
  bool in_metadata_ = false;
  bool metadata_seen_ = false;
  unsigned field_ = 3;
  unsigned fields_seen_ = 0;
  int offsets_found_ = 0;
};

[[nodiscard]] inline input_error tensor_fault(std::string const& place, tensor_info const& tensor,
                                              std::string const& message) {
  return {place, "tensor '" + printable(tensor.name) + "': " + message};
}

/// Sorts by name and refuses equal names. Sorting, unlike hashing, cannot be made slow by chosen names.
inline void sort_by_unique_name(std::vector<tensor_info>& tensors, std::string const& place) {
  auto const by_name = [](tensor_info const& a, tensor_info const& b) { return a.name < b.name; };
  if (!std::is_sorted(tensors.begin(), tensors.end(), by_name)) std::sort(tensors.begin(), tensors.end(), by_name);
  auto const twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                        [](tensor_info const& a, tensor_info const& b) { return a.name == b.name; });
  if (twice != tensors.end()) throw tensor_fault(place, *twice, "expected once, found twice");
}

/// Refuses metadata that names a key twice.
inline void require_unique_keys(safetensors_metadata const& metadata, std::string const& place) {
  std::vector<std::string_view> keys;
  keys.reserve(metadata.size());
  for (auto const& [key, value] : metadata) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  auto const twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice != keys.end())
    throw input_error(place, "__metadata__: '" + printable(*twice) + "': expected once, found twice");
}

/// The tensors must tile [0, end) without holes and overlaps and have the size that shape and type ask for.
/// Turns the pair begin, end (in `offset`, `bytes`) into offset in the file and length; returns the end.
inline std::uint64_t validate_offsets(safetensors_header& header, std::string const& place) {
  // Sorted apart from the tensors: with a million of them, the way through memory is what costs.
  std::vector<std::tuple<std::uint64_t, std::uint64_t, std::size_t>> places;
  places.reserve(header.tensors.size());
  for (tensor_info const& tensor : header.tensors) places.emplace_back(tensor.offset, tensor.bytes, places.size());
  std::sort(places.begin(), places.end());
  std::uint64_t expected = 0;
  for (auto const& [begin, end, i] : places) {
    tensor_info& tensor = header.tensors[i];
    if (begin != expected)
      throw tensor_fault(place, tensor, "data_offsets: expected to begin at " + std::to_string(expected) +
                                            " (no hole, no overlap), found " + std::to_string(begin));
    if (end < begin)
      throw tensor_fault(place, tensor, "data_offsets: expected end >= begin, found " + std::to_string(begin) + ", " +
                                            std::to_string(end));
    auto const elements = element_count(tensor.shape);
    if (!elements) throw tensor_fault(place, tensor, "shape: expected a product below 2^64, found a larger one");
    if (tensor.type != dtype::unknown) {
      auto const bytes = byte_count(tensor.type, tensor.shape);
      if (!bytes)
        throw tensor_fault(place, tensor, "shape: expected a whole number of bytes below 2^61, found " +
                                              std::to_string(*elements) + " elements of " +
                                              std::string(dtype_name(tensor.type)));
      if (*bytes != end - begin)
        throw tensor_fault(place, tensor, "data_offsets: expected " + std::to_string(*bytes) + " bytes, found " +
                                              std::to_string(end - begin));
    }
    expected = end;
    tensor.bytes = end - begin;
  }
  return expected;
}

/// "version https://git-lfs..." in place of the data means that the download did not happen.
inline void refuse_lfs_pointer(input_file const& file) {
  static constexpr std::string_view mark = "version https://git-lfs";
  std::array<char, 512> text{};
  auto const size = static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), text.size()));
  file.read_at(0, std::as_writable_bytes(std::span<char>(text.data(), size)));
  std::string_view const found(text.data(), size);
  if (found.substr(0, mark.size()) != mark) return;
  std::string message = "expected a safetensors file, found a git-LFS pointer (the data was never downloaded";
  if (auto const at = found.find("\nsize "); at != std::string_view::npos) {
    std::string_view const number = found.substr(at + 6, found.substr(at + 6).find('\n'));
    message += "; it has " + printable(number, 24) + " bytes";
  }
  throw input_error(file.place(), message + ")");
}

}  // namespace detail

/// Reads and checks the header of `file` by every rule of the format. Besides the file's tensors, memory is bounded
/// (the text is streamed); O(n log n) in the number of tensors. Throws `input_error` naming file and tensor.
[[nodiscard]] inline safetensors_header read_safetensors_header(input_file const& file,
                                                                safetensors_read_options options = {}) {
  std::string const place = file.place();
  detail::refuse_lfs_pointer(file);
  if (file.size() < 8)
    throw input_error(place, "truncated: expected at least 8 bytes, found " + std::to_string(file.size()));
  std::array<std::byte, 9> start{};
  file.read_at(0, std::span(start).first(file.size() > 8 ? 9 : 8));
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(start[i]);
  if (length > safetensors_header_limit)
    throw input_error(place, "header length: expected at most " + std::to_string(safetensors_header_limit) +
                                 ", found " + std::to_string(length));
  if (length < 2) throw input_error(place, "header length: expected at least 2, found " + std::to_string(length));
  if (length > file.size() - 8)
    throw input_error(place, "truncated: expected a header of " + std::to_string(length) + " bytes, found " +
                                 std::to_string(file.size() - 8) + " (" + std::to_string(length - (file.size() - 8)) +
                                 " bytes missing)");
  if (start[8] != std::byte{'{'}) throw input_error(place, "header: expected '{' as its first byte");

  safetensors_header header;
  json_source source(file, 8, length);
  detail::safetensors_header_events events(source, header);
  read_json_events(events);

  detail::sort_by_unique_name(header.tensors, place);
  detail::require_unique_keys(header.metadata, place);
  header.data_offset = 8 + length;
  header.data_bytes = detail::validate_offsets(header, place);
  std::uint64_t const found = file.size() - header.data_offset;
  if (header.data_bytes > found)
    throw input_error(place, "truncated: expected " + std::to_string(header.data_bytes) + " bytes of data, found " +
                                 std::to_string(found) + " (" + std::to_string(header.data_bytes - found) +
                                 " bytes missing)");
  if (header.data_bytes < found && !options.lenient)
    throw input_error(place, "expected the file to end after the last tensor, found " +
                                 std::to_string(found - header.data_bytes) + " more bytes");
  for (tensor_info& tensor : header.tensors) tensor.offset += header.data_offset;
  return header;
}

}  // namespace v0
}  // namespace slimtrim
