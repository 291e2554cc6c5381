// A regular file mapped read-only, without copies, whose pages can be given back piece by piece.
//
// A mapping is the quick way to look at weights, but if another process truncates the file, touching a page raises
// SIGBUS. Long runs that write something should therefore read through `input_file::read_at` (pread), which turns
// the same accident into an error; the mapping is for inference and inspection.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/input_file.hpp>

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace slimtrim {
inline namespace v0 {

/// A private read-only mapping of a whole file. Spans handed out live as long as the object (moves keep them valid).
class mapped_file {
 public:
  mapped_file() = default;

  /// Maps all of `file`. Costs address space only; pages are read when they are touched.
  /// Throws `system_failure` when the file system cannot map.
  explicit mapped_file(input_file file) : file_(std::move(file)) {
    if (file_.size() == 0) return;
    if (file_.size() > SIZE_MAX) throw system_error_at(file_.path(), "mmap", EOVERFLOW);
    void* const address = ::mmap(nullptr, static_cast<std::size_t>(file_.size()), PROT_READ,
                                 MAP_PRIVATE | MAP_NORESERVE, file_.descriptor(), 0);
    if (address == MAP_FAILED) throw system_error_at(file_.path(), "mmap", errno);
    bytes_ = {static_cast<std::byte const*>(address), static_cast<std::size_t>(file_.size())};
  }

  mapped_file(mapped_file&& other) noexcept
      : file_(std::move(other.file_)), bytes_(std::exchange(other.bytes_, {})) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(file_, other.file_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~mapped_file() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  [[nodiscard]] input_file const& file() const noexcept { return file_; }
  [[nodiscard]] std::span<std::byte const> bytes() const noexcept { return bytes_; }

  /// Takes the pages that touch `[offset, offset + length)` out of memory, and what lies up to 64 KiB beside them; the
  /// next access reads them again, so a neighbour loses time but never data.
  void release(std::uint64_t offset, std::uint64_t length) const noexcept {
    // A fault maps the pages around it too, up to 64 KiB on Linux: those of a neighbour that was released already would stay,
    // a few for every tensor of the file.
    std::uint64_t const before = offset < fault_around ? offset : fault_around;
    std::uint64_t const whole = length > UINT64_MAX - 2 * fault_around ? UINT64_MAX : before + length + fault_around;
    if (length != 0) advise(offset - before, whole, MADV_DONTNEED);
  }

  /// Has `[offset, offset + length)` read into the system's memory; waits while the disk's queue is full.
  void prefetch(std::uint64_t offset, std::uint64_t length) const noexcept {
    // Linux reads no more for one advice than it reads ahead by itself, by default this much; the rest would be dropped.
    for (std::uint64_t at = 0; at < length; at += advised) {
      advise(offset + at, length - at < advised ? length - at : advised, MADV_WILLNEED);
      if (offset + at >= bytes_.size()) break;
    }
  }

 private:
  static constexpr std::uint64_t fault_around = std::uint64_t{64} << 10, advised = std::uint64_t{128} << 10;

  void advise(std::uint64_t offset, std::uint64_t length, int advice) const noexcept {
    if (offset >= bytes_.size() || length == 0) return;
    auto const page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::uint64_t const first = offset / page * page;
    std::uint64_t const last = length > bytes_.size() - offset ? bytes_.size() : offset + length;
    // Advice is only advice: a refusal changes speed, not results.
    (void)::madvise(const_cast<std::byte*>(bytes_.data()) + first, static_cast<std::size_t>(last - first), advice);
  }

  input_file file_;
  std::span<std::byte const> bytes_;
};

}  // namespace v0
}  // namespace slimtrim
