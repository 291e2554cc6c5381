// A folder that appears under its final name complete, or not at all.
//
// Everything is written into `OUT.partial/`; `commit` syncs the files, then the folder, renames it to `OUT` and syncs
// the parent. One process at a time holds the lock of `OUT.partial`; the lock dies with the process, so what a killed
// run left behind can be told from what a living one is writing.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/output_file.hpp>
#include <slimtrim/io/printable.hpp>

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct atomic_folder_options {
  /// Files and folders that are read meanwhile: the output may be none of them and lie inside none of them.
  std::vector<std::filesystem::path> inputs{};
  /// Continue in what a killed run left, instead of removing it first.
  bool resume = false;
  /// Leave `OUT.partial` in place when the object dies without `commit`, so that a later run can resume.
  bool keep = false;
};

namespace detail {

/// Renames without ever replacing: whoever comes second gets EEXIST.
inline void rename_to_new(std::filesystem::path const& from, std::filesystem::path const& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
  int number = errno;
  if (number == ENOSYS || number == EINVAL) {
    // The file system cannot do it in one step; looking first is the best that is left.
    struct stat status;
    if (::lstat(to.c_str(), &status) == 0)
      number = EEXIST;
    else if (::rename(from.c_str(), to.c_str()) == 0)
      return;
    else
      number = errno;
  }
  if (number == EEXIST)
    throw input_error(printable(to.native(), 1000), "expected not to exist yet, found something under this name");
  throw system_error_at(to, "rename", number);
}

/// `out` with its parent resolved, so that the final name is unambiguous.
[[nodiscard]] inline std::filesystem::path resolve_new_path(std::filesystem::path const& out) {
  // Not normalised as text: behind a link, `..` is the parent of what the link leads to.
  std::filesystem::path path = out.has_filename() ? out : out.parent_path();
  std::string const name = path.filename().native();
  if (name.empty() || name == "." || name == "..")
    throw usage_error("output '" + printable(out.native(), 1000) + "': expected the name of something new");
  std::error_code code;
  std::filesystem::path parent = path.parent_path();
  parent = std::filesystem::canonical(parent.empty() ? std::filesystem::path(".") : parent, code);
  if (code)
    throw input_error(printable(out.native(), 1000),
                      "expected an existing parent folder, found: " + std::generic_category().message(code.value()));
  return parent / name;
}

inline void require_absent(std::filesystem::path const& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) == 0)
    throw input_error(printable(path.native(), 1000), "output: expected not to exist yet, found something there");
  if (errno != ENOENT) throw system_error_at(path, "lstat", errno);
}

/// `path` (resolved, not yet existing) must not be one of `inputs` or lie inside one. Folders are compared by identity,
/// so another spelling, a link or a bind mount makes no difference.
inline void require_outside(std::filesystem::path const& path, std::vector<std::filesystem::path> const& inputs) {
  for (std::filesystem::path const& input : inputs) {
    struct stat wanted;
    if (::stat(input.c_str(), &wanted) != 0) continue;
    for (std::filesystem::path folder = path.parent_path();; folder = folder.parent_path()) {
      struct stat found;
      if (::stat(folder.c_str(), &found) == 0 && found.st_dev == wanted.st_dev && found.st_ino == wanted.st_ino)
        throw input_error(printable(path.native(), 1000),
                          "output: expected outside of the input, found inside " + printable(input.native(), 1000));
      if (folder == folder.parent_path()) break;
    }
  }
}

}  // namespace detail

/// Says early what `atomic_folder` and `atomic_file` would say of `out` after the work; returns it with its parent resolved. Throws
/// `usage_error` for what is no name, `input_error` when something is there, the parent is not, or it lies inside an input,
/// `system_failure` when nothing can be created in the parent.
inline std::filesystem::path check_new_output(std::filesystem::path const& out, std::vector<std::filesystem::path> const& inputs = {}) {
  std::filesystem::path const path = detail::resolve_new_path(out);
  detail::require_outside(path, inputs);
  detail::require_absent(path);
  if (::access(path.parent_path().c_str(), W_OK | X_OK) != 0) throw system_error_at(path, "create", errno);
  return path;
}

/// A folder under construction. Not committed when destroyed: removed (unless `keep`).
class atomic_folder {
 public:
  /// Creates and locks `<out>.partial`. Throws `input_error` when `out` exists (a dangling link counts), lies inside
  /// an input, or another process is writing it; `system_failure` when the system refuses.
  explicit atomic_folder(std::filesystem::path const& out, atomic_folder_options options = {})
      : final_(detail::resolve_new_path(out)), partial_(final_.native() + ".partial"), keep_(options.keep) {
    detail::require_outside(final_, options.inputs);
    detail::require_absent(final_);
    acquire();
    try {
      // A run that held the lock just before us may have finished since the first look.
      detail::require_absent(final_);
      settle_contents(options.resume);
    } catch (...) {
      // What is in there was not made here, or not only: leave it, just let the lock go.
      if (created_) std::filesystem::remove_all(partial_, ignored_);
      throw;
    }
  }
  atomic_folder(atomic_folder&& other) noexcept
      : final_(std::move(other.final_)),
        partial_(std::move(other.partial_)),
        lock_(std::move(other.lock_)),
        created_(other.created_),
        resumed_(other.resumed_),
        keep_(other.keep_) {}
  atomic_folder& operator=(atomic_folder&&) = delete;

  ~atomic_folder() {
    if (lock_ && !keep_) std::filesystem::remove_all(partial_, ignored_);
  }

  /// Where to write: `<out>.partial`, with links in the parent resolved.
  [[nodiscard]] std::filesystem::path const& path() const noexcept { return partial_; }
  /// The name that the folder will have.
  [[nodiscard]] std::filesystem::path const& final_path() const noexcept { return final_; }
  /// Whether a killed run's files are here to continue from.
  [[nodiscard]] bool resumed() const noexcept { return resumed_; }
  /// Changes what the destructor does without `commit`.
  void keep(bool value) noexcept { keep_ = value; }

  /// Creates file `name` in the folder. Throws `error` unless it is a plain name.
  [[nodiscard]] output_file create(std::string_view name) const {
    return output_file::create(entry(name));
  }

  /// Whether the folder has a file `name` already.
  [[nodiscard]] bool has(std::string_view name) const {
    struct stat status;
    return ::lstat(entry(name).c_str(), &status) == 0;
  }
  /// Opens a file of the folder again, keeping what it holds.
  [[nodiscard]] output_file reopen(std::string_view name) const { return output_file::reopen(entry(name)); }
  /// Removes a file of the folder; nothing happens when there is none.
  void remove(std::string_view name) const {
    std::filesystem::path const path = entry(name);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw system_error_at(path, "unlink", errno);
  }

  /// Writes a whole file at once.
  void write(std::string_view name, std::string_view text) const {
    output_file file = create(name);
    file.write_at(0, as_byte_span(text));
    file.sync();
    file.close();
  }

  /// Copies a whole file, byte for byte, in constant memory.
  void copy(input_file const& from, std::string_view name) const {
    output_file file = create(name);
    std::vector<std::byte> buffer(std::size_t{1} << 20);
    for (std::uint64_t at = 0; at < from.size();) {
      auto const part = std::span(buffer).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), from.size() - at)));
      from.read_at(at, part);
      file.write_at(at, part);
      at += part.size();
    }
    file.sync();
    file.close();
  }

  /// Syncs all files, then the folders, renames to the final name and syncs the parent. After a `system_failure`
  /// nothing is under the final name.
  void commit() {
    if (!lock_) throw error("atomic_folder: commit: expected once");
    for (auto const& item : std::filesystem::recursive_directory_iterator(partial_)) {
      if (item.is_symlink()) throw input_error(printable(item.path().native(), 1000), "expected no link in the output");
      if (item.is_directory()) sync_folder(item.path());
      if (item.is_regular_file() && item.path().filename() != marker) sync_file(item.path());
    }
    sync_folder(partial_);
    detail::rename_to_new(partial_, final_);
    // The marker goes last: a kill at any moment leaves what the next run knows as ours, or a complete folder, at worst with
    // this empty file in it, which is no part of any checkpoint.
    (void)::unlink((final_ / marker).c_str());
    lock_ = {};
    sync_folder(final_);
    sync_folder(final_.parent_path());
  }

 private:
  /// Marks a folder as ours; only such a folder is ever emptied.
  static constexpr char const* marker = ".slimtrim-partial";

  [[nodiscard]] std::filesystem::path entry(std::string_view name) const {
    if (!is_plain_file_name(name) || name == marker)
      throw error("atomic_folder: expected a plain file name, found '" + printable(name) + "'");
    return partial_ / std::filesystem::path(std::string(name));
  }

  void acquire() {
    // A holder may commit or clean up between our steps; then the folder we opened is no longer the one at the path.
    for (int attempt = 0; attempt < 16; ++attempt) {
      created_ = ::mkdir(partial_.c_str(), 0777) == 0;
      if (!created_ && errno != EEXIST) throw system_error_at(partial_, "mkdir", errno);
      file_descriptor folder(::open(partial_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!folder) {
        if (errno == ENOENT) continue;
        if (errno == ELOOP || errno == ENOTDIR)
          throw input_error(printable(partial_.native(), 1000), "expected no file or link under this name");
        throw system_error_at(partial_, "open", errno);
      }
      if (::flock(folder.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
          throw input_error(printable(partial_.native(), 1000), "another process is writing this output");
        throw system_error_at(partial_, "flock", errno);
      }
      struct stat held, found;
      if (::fstat(folder.get(), &held) == 0 && ::lstat(partial_.c_str(), &found) == 0 && held.st_dev == found.st_dev &&
          held.st_ino == found.st_ino) {
        lock_ = std::move(folder);
        return;
      }
    }
    throw input_error(printable(partial_.native(), 1000), "another process is writing this output");
  }

  void settle_contents(bool resume) {
    bool const empty = std::filesystem::is_empty(partial_);
    struct stat status;
    bool const ours = ::lstat((partial_ / marker).c_str(), &status) == 0;
    if (!empty && !ours)
      throw input_error(printable(partial_.native(), 1000),
                        "expected nothing or the rest of a stopped run, found files of unknown origin");
    resumed_ = resume && ours;
    if (resumed_) return;
    for (auto const& item : std::filesystem::directory_iterator(partial_))
      if (item.path().filename() != marker) std::filesystem::remove_all(item.path());
    if (!ours) leave_marker();
  }

  void leave_marker() const { output_file::create(partial_ / marker).close(); }

  static void sync_file(std::filesystem::path const& path) {
    file_descriptor const file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!file) throw system_error_at(path, "open", errno);
    while (::fsync(file.get()) != 0)
      if (errno != EINTR) throw system_error_at(path, "fsync", errno);
  }

  std::filesystem::path final_;
  std::filesystem::path partial_;
  file_descriptor lock_;
  bool created_ = false;
  bool resumed_ = false;
  bool keep_ = false;
  std::error_code ignored_;
};

}  // namespace v0
}  // namespace slimtrim
