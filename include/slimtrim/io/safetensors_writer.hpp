// Writing one safetensors file: all names, types and shapes are known first, the data comes later in any order.
//
// Bytes equal those of the reference library for the same tensors and metadata: tensors sorted by alignment (largest
// first), then by name, header padded with spaces so that the data begins at a multiple of 8.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/dtype.hpp>
#include <slimtrim/io/output_file.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/safetensors_header.hpp>  // tensor_description, tensor_info

#include <nlohmann/json.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Where everything of a file will be: `header` is its first bytes, `tensors` (in file order) have absolute offsets.
struct safetensors_layout {
  std::string header;
  std::vector<tensor_info> tensors;
  std::uint64_t file_bytes = 0;
};

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

/// Reserves the space of a planned file and writes its header: a reader finds all tensors then, with zeros for data.
inline void begin_safetensors(output_file& file, safetensors_layout const& layout) {
  file.reserve(layout.file_bytes);
  file.write_at(0, as_byte_span(layout.header));
}

/// Whether `file` is what `begin_safetensors` makes of `layout`, whatever its data.
[[nodiscard]] inline bool is_begun(output_file const& file, safetensors_layout const& layout) {
  struct stat status;
  if (::fstat(file.descriptor(), &status) != 0) throw system_error_at(file.path(), "fstat", errno);
  if (static_cast<std::uint64_t>(status.st_size) != layout.file_bytes) return false;
  std::string found(layout.header.size(), '\0');
  std::size_t done = 0;
  while (done < found.size()) {
    ::ssize_t const got = ::pread(file.descriptor(), found.data() + done, found.size() - done, static_cast<::off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_error_at(file.path(), "read", errno);
    if (got == 0) return false;
    done += static_cast<std::size_t>(got);
  }
  return found == layout.header;
}

/// Fills a planned file. `write` may be called from several threads, in any order, in pieces of any size; every byte
/// must come exactly once. The bytes of the file do not depend on the order.
class safetensors_writer {
 public:
  /// Takes over an open file and begins it; unless `begun` says that this was done before.
  safetensors_writer(output_file file, safetensors_layout layout, bool begun = false)
      : file_(std::move(file)), layout_(std::move(layout)), written_(layout_.tensors.size()) {
    by_name_.reserve(layout_.tensors.size());
    for (std::size_t i = 0; i < layout_.tensors.size(); ++i) {
      by_name_.emplace(layout_.tensors[i].name, i);
      remaining_ += layout_.tensors[i].bytes;
    }
    if (!begun) begin_safetensors(file_, layout_);
    layout_.header = {};
  }

  /// Writes bytes `[offset, offset + data.size())` of tensor `name`.
  /// Throws `error` for an unknown name, bytes outside the tensor and bytes that were written before.
  void write(std::string_view name, std::uint64_t offset, std::span<std::byte const> data) {
    auto const found = by_name_.find(name);
    if (found == by_name_.end()) throw error(place(name) + "not in the plan");
    tensor_info const& tensor = layout_.tensors[found->second];
    if (offset > tensor.bytes || data.size() > tensor.bytes - offset)
      throw error(place(name) + "expected bytes inside " + std::to_string(tensor.bytes) + ", found " +
                  std::to_string(offset) + " + " + std::to_string(data.size()));
    if (data.empty()) return;
    claim(found->second, offset, offset + data.size());
    file_.write_at(tensor.offset + offset, data);
    std::lock_guard const lock(mutex_);
    remaining_ -= data.size();
  }

  /// Writes all of tensor `name`; `data` must have its size.
  void write(std::string_view name, std::span<std::byte const> data) {
    auto const found = by_name_.find(name);
    if (found != by_name_.end() && layout_.tensors[found->second].bytes != data.size())
      throw error(place(name) + "expected " + std::to_string(layout_.tensors[found->second].bytes) +
                  " bytes, found " + std::to_string(data.size()));
    write(name, 0, data);
  }

  /// Takes tensor `name` as written: a stopped run did it. Errors as `write`.
  void accept(std::string_view name) {
    auto const found = by_name_.find(name);
    if (found == by_name_.end()) throw error(place(name) + "not in the plan");
    std::uint64_t const bytes = layout_.tensors[found->second].bytes;
    if (bytes == 0) return;
    claim(found->second, 0, bytes);
    std::lock_guard const lock(mutex_);
    remaining_ -= bytes;
  }

  /// Waits until everything written so far is on the disk.
  void sync() { file_.sync(); }

  /// Whether every byte of every tensor has been written.
  [[nodiscard]] bool complete() const {
    std::lock_guard const lock(mutex_);
    return remaining_ == 0;
  }

  /// Throws `error` naming a tensor that is not complete; otherwise syncs and closes the file.
  void finish() {
    for (std::size_t i = 0; i < layout_.tensors.size(); ++i) {
      tensor_info const& tensor = layout_.tensors[i];
      std::uint64_t sum = 0;
      for (auto const& [begin, end] : written_[i]) sum += end - begin;
      if (sum != tensor.bytes)
        throw error(place(tensor.name) + "expected " + std::to_string(tensor.bytes) + " bytes written, found " +
                    std::to_string(sum));
    }
    file_.sync();
    file_.close();
  }

 private:
  [[nodiscard]] std::string place(std::string_view name) const {
    return printable(file_.path().native(), 1000) + ": tensor '" + printable(name) + "': ";
  }

  /// Notes `[begin, end)` as written; neighbours melt together, so a tensor written in order needs one interval.
  void claim(std::size_t tensor, std::uint64_t begin, std::uint64_t end) {
    std::lock_guard const lock(mutex_);
    std::map<std::uint64_t, std::uint64_t>& intervals = written_[tensor];
    auto next = intervals.lower_bound(begin);
    bool const overlaps_next = next != intervals.end() && next->first < end;
    bool const overlaps_previous = next != intervals.begin() && std::prev(next)->second > begin;
    if (overlaps_next || overlaps_previous)
      throw error(place(layout_.tensors[tensor].name) + "bytes " + std::to_string(begin) + " to " +
                  std::to_string(end) + " written twice");
    if (next != intervals.end() && next->first == end) {
      end = next->second;
      next = intervals.erase(next);
    }
    if (next != intervals.begin() && std::prev(next)->second == begin)
      std::prev(next)->second = end;
    else
      intervals.emplace_hint(next, begin, end);
  }

  output_file file_;
  safetensors_layout layout_;
  std::unordered_map<std::string_view, std::size_t> by_name_;
  std::vector<std::map<std::uint64_t, std::uint64_t>> written_;
  std::uint64_t remaining_ = 0;
  mutable std::mutex mutex_;
};

}  // namespace v0
}  // namespace slimtrim
