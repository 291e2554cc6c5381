// Filling a file of tensors whose every byte has its place before the first one is written.
//
// What a format contributes is a plan: the first bytes of the file and where each tensor lies. The writing is the same
// for all of them.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/output_file.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/safetensors_header.hpp>  // tensor_info

#include <sys/stat.h>
#include <unistd.h>

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
/// Bytes that belong to neither stay zero.
struct planned_layout {
  std::string header;
  std::vector<tensor_info> tensors;
  std::uint64_t file_bytes = 0;
};

/// Reserves the space of a planned file and writes its header: a reader finds all tensors then, with zeros for data.
inline void begin_planned(output_file& file, planned_layout const& layout) {
  file.reserve(layout.file_bytes);
  file.write_at(0, as_byte_span(layout.header));
}

/// Whether `file` is what `begin_planned` makes of `layout`, whatever its data.
[[nodiscard]] inline bool is_begun(output_file const& file, planned_layout const& layout) {
  struct stat status;
  if (::fstat(file.descriptor(), &status) != 0) throw system_error_at(file.path(), "fstat", errno);
  if (static_cast<std::uint64_t>(status.st_size) != layout.file_bytes) return false;
  std::string found(layout.header.size(), '\0');
  std::size_t done = 0;
  while (done < found.size()) {
    ::ssize_t const got =
        ::pread(file.descriptor(), found.data() + done, found.size() - done, static_cast<::off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_error_at(file.path(), "read", errno);
    if (got == 0) return false;
    done += static_cast<std::size_t>(got);
  }
  return found == layout.header;
}

/// Fills a planned file. `write` may be called from several threads, in any order, in pieces of any size; every byte
/// must come exactly once. The bytes of the file do not depend on the order.
class planned_writer {
 public:
  /// Takes over an open file and begins it; unless `begun` says that this was done before.
  planned_writer(output_file file, planned_layout layout, bool begun = false)
      : file_(std::move(file)), layout_(std::move(layout)), written_(layout_.tensors.size()) {
    by_name_.reserve(layout_.tensors.size());
    for (std::size_t i = 0; i < layout_.tensors.size(); ++i) {
      by_name_.emplace(layout_.tensors[i].name, i);
      remaining_ += layout_.tensors[i].bytes;
    }
    if (!begun) begin_planned(file_, layout_);
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
    bool begin = false;
    {
      std::lock_guard const lock(mutex_);
      remaining_ -= data.size();
      resting_ += data.size();
      begin = resting_ >= writeback_bytes;
      if (begin) resting_ = 0;
    }
    if (begin) file_.start_writeback();
  }

  /// Writes all of tensor `name`; `data` must have its size.
  void write(std::string_view name, std::span<std::byte const> data) {
    auto const found = by_name_.find(name);
    if (found != by_name_.end() && layout_.tensors[found->second].bytes != data.size())
      throw error(place(name) + "expected " + std::to_string(layout_.tensors[found->second].bytes) + " bytes, found " +
                  std::to_string(data.size()));
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

  /// After so many bytes the disk is set to work, beside whatever makes the next ones.
  static constexpr std::uint64_t writeback_bytes = std::uint64_t{16} << 20;

  output_file file_;
  planned_layout layout_;
  std::unordered_map<std::string_view, std::size_t> by_name_;
  std::vector<std::map<std::uint64_t, std::uint64_t>> written_;
  std::uint64_t remaining_ = 0;
  std::uint64_t resting_ = 0;  // written, and the disk not yet asked
  mutable std::mutex mutex_;
};

}  // namespace v0
}  // namespace slimtrim
