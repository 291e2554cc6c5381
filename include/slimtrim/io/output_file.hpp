// A file being written: positional writes that are complete or throw, and the syncs that make it last.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>     // checked_multiply
#include <slimtrim/io/input_file.hpp>  // file_descriptor, system_error_at

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace slimtrim {
inline namespace v0 {

/// `text` as bytes to write.
[[nodiscard]] inline std::span<std::byte const> as_byte_span(std::string_view text) {
  return {reinterpret_cast<std::byte const*>(text.data()), text.size()};
}

/// Makes a rename or a new entry inside `folder` survive a power cut.
inline void sync_folder(std::filesystem::path const& folder) {
  file_descriptor const opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened) throw system_error_at(folder, "open", errno);
  // Some network file systems cannot sync a folder and say EINVAL; there is nothing more to do there.
  if (::fsync(opened.get()) != 0 && errno != EINVAL) throw system_error_at(folder, "fsync", errno);
}

/// Throws `system_failure` when the file system of `folder` has less than `bytes` free for this user.
inline void require_free_space(std::filesystem::path const& folder, std::uint64_t bytes) {
  struct statvfs status;
  int result = 0;
  do {
    result = ::statvfs(folder.c_str(), &status);
  } while (result != 0 && errno == EINTR);
  if (result != 0) throw system_error_at(folder, "statvfs", errno);
  // Both factors are whatever a file system driver reports; a product beyond 64 bits is enough for anything.
  std::uint64_t const free_bytes = checked_multiply(status.f_bavail, status.f_frsize).value_or(UINT64_MAX);
  if (free_bytes < bytes)
    throw system_failure(printable(folder.native(), 1000) + ": not enough space: expected " + std::to_string(bytes) +
                         " bytes free, found " + std::to_string(free_bytes));
}

/// A new file open for writing. Writes are positional and may come from several threads at once.
/// Every failure is a `system_failure` with path and reason.
class output_file {
 public:
  output_file() = default;

  /// Creates `path`, which must not exist (not even as a link).
  [[nodiscard]] static output_file create(std::filesystem::path const& path) {
    return {path, O_CREAT | O_EXCL};
  }

  /// Opens a file that a stopped run left, keeping what it holds.
  [[nodiscard]] static output_file reopen(std::filesystem::path const& path) { return {path, 0}; }

  [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }
  [[nodiscard]] bool is_open() const noexcept { return static_cast<bool>(descriptor_); }

  /// Reserves `bytes` on disk and sets the size, so that a full disk shows before the work and not after it.
  void reserve(std::uint64_t bytes) {
    int result = 0;
    do {
      result = bytes == 0 ? 0 : ::posix_fallocate(descriptor_.get(), 0, static_cast<::off_t>(bytes));
    } while (result == EINTR);
    if (result == EOPNOTSUPP || result == EINVAL || result == ENOSYS) {
      do {
        result = ::ftruncate(descriptor_.get(), static_cast<::off_t>(bytes)) == 0 ? 0 : errno;
      } while (result == EINTR);
    }
    if (result != 0) throw system_error_at(path_, "reserve " + std::to_string(bytes) + " bytes", result);
  }

  /// Writes all of `data` at `offset`.
  void write_at(std::uint64_t offset, std::span<std::byte const> data) {
    while (!data.empty()) {
      std::size_t const want = std::min<std::size_t>(data.size(), std::size_t{1} << 30);
      ::ssize_t const done = ::pwrite(descriptor_.get(), data.data(), want, static_cast<::off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0)
        throw system_error_at(path_, "write of " + std::to_string(want) + " bytes at " + std::to_string(offset),
                              done < 0 ? errno : EIO);
      data = data.subspan(static_cast<std::size_t>(done));
      offset += static_cast<std::uint64_t>(done);
    }
  }

  /// Asks the system to begin writing to the disk what it holds, so that a later `sync` has less to wait for. Only a wish.
  void start_writeback() const noexcept {
#ifdef SYNC_FILE_RANGE_WRITE
    (void)::sync_file_range(descriptor_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
  }

  /// Waits until everything written is on the disk.
  void sync() {
    while (::fsync(descriptor_.get()) != 0)
      if (errno != EINTR) throw system_error_at(path_, "fsync", errno);
  }

  /// Closes and reports what the system may only say then (quota and network file systems do).
  void close() {
    if (!descriptor_) return;
    if (::close(descriptor_.release()) != 0 && errno != EINTR) throw system_error_at(path_, "close", errno);
  }

 private:
  output_file(std::filesystem::path path, int flags) : path_(std::move(path)) {
    int const value = ::open(path_.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags, 0666);
    if (value < 0) throw system_error_at(path_, "create", errno);
    descriptor_ = file_descriptor(value);
  }

  std::filesystem::path path_;
  file_descriptor descriptor_;
};

}  // namespace v0
}  // namespace slimtrim
