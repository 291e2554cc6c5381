// A single file that appears under its final name complete, or not at all.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/atomic_folder.hpp>  // resolve_new_path, rename_to_new
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/output_file.hpp>

#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A file under construction: written as `.<name>.slimtrim-partial` beside its final name and renamed by `commit`.
/// Not committed when destroyed: removed.
class atomic_file {
 public:
  /// Throws `input_error` when `out` exists, lies inside an input folder, or another process is writing it.
  explicit atomic_file(std::filesystem::path const& out, std::vector<std::filesystem::path> const& inputs = {})
      : final_(detail::resolve_new_path(out)),
        partial_(final_.parent_path() / ("." + final_.filename().native() + ".slimtrim-partial")) {
    detail::require_outside(final_, inputs);
    detail::require_absent(final_);
    acquire();
  }
  atomic_file(atomic_file const&) = delete;
  atomic_file& operator=(atomic_file const&) = delete;
  ~atomic_file() {
    if (lock_) ::unlink(partial_.c_str());
  }

  /// Where to write until `commit`.
  [[nodiscard]] std::filesystem::path const& path() const noexcept { return partial_; }
  [[nodiscard]] std::filesystem::path const& final_path() const noexcept { return final_; }

  /// The empty file to write into; a new handle each time.
  [[nodiscard]] output_file open() const { return output_file::reopen(partial_); }

  /// Syncs the file, renames it and syncs the folder.
  void commit() {
    if (!lock_) throw error("atomic_file: commit: expected once");
    while (::fsync(lock_.get()) != 0)
      if (errno != EINTR) throw system_error_at(partial_, "fsync", errno);
    detail::rename_to_new(partial_, final_);
    lock_ = {};
    sync_folder(final_.parent_path());
  }

 private:
  void acquire() {
    for (int attempt = 0; attempt < 16; ++attempt) {
      file_descriptor file(::open(partial_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
      if (!file) throw system_error_at(partial_, "create", errno);
      if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
          throw input_error(printable(final_.native(), 1000), "another process is writing this output");
        throw system_error_at(partial_, "flock", errno);
      }
      struct stat held, found;
      if (::fstat(file.get(), &held) != 0 || ::lstat(partial_.c_str(), &found) != 0 || held.st_dev != found.st_dev ||
          held.st_ino != found.st_ino)
        continue;
      if (::ftruncate(file.get(), 0) != 0) throw system_error_at(partial_, "truncate", errno);
      lock_ = std::move(file);
      return;
    }
    throw input_error(printable(final_.native(), 1000), "another process is writing this output");
  }

  std::filesystem::path final_;
  std::filesystem::path partial_;
  file_descriptor lock_;
};

/// Writes `data` as a new file at `out`, complete or not at all. Errors as `atomic_file`.
inline void write_file_atomically(std::filesystem::path const& out, std::span<std::byte const> data,
                                  std::vector<std::filesystem::path> const& inputs = {}) {
  atomic_file target(out, inputs);
  output_file file = target.open();
  file.write_at(0, data);
  file.close();
  target.commit();
}

/// As above, for text.
inline void write_file_atomically(std::filesystem::path const& out, std::string_view text,
                                  std::vector<std::filesystem::path> const& inputs = {}) {
  write_file_atomically(out, as_byte_span(text), inputs);
}

}  // namespace v0
}  // namespace slimtrim
