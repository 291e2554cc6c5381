// A regular file opened for reading, with positional reads and a check that nobody changed it meanwhile.
//
// Whatever the user's folder holds under a name - a pipe, a device, a link that leads elsewhere - opening it must
// neither hang nor read what it should not: hence O_NONBLOCK, O_NOFOLLOW and fstat before the first byte.
#pragma once

#include <slimtrim/core/error.hpp>    // input_error, system_failure
#include <slimtrim/io/printable.hpp>  // names in messages

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace slimtrim {
inline namespace v0 {

/// Owns a file descriptor.
class file_descriptor {
 public:
  file_descriptor() = default;
  explicit file_descriptor(int value) : value_(value) {}
  file_descriptor(file_descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  file_descriptor& operator=(file_descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~file_descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  [[nodiscard]] int get() const noexcept { return value_; }
  [[nodiscard]] int release() noexcept { return std::exchange(value_, -1); }
  explicit operator bool() const noexcept { return value_ >= 0; }

 private:
  int value_ = -1;
};

/// The exception for a failed system call: "<path>: <doing>: <text of the error number>".
[[nodiscard]] inline system_failure system_error_at(std::filesystem::path const& path, std::string_view doing,
                                                    int number) {
  return system_failure(printable(path.native(), 1000) + ": " + std::string(doing) + ": " +
                        std::generic_category().message(number));
}

/// Whether `name` can only mean an entry of the folder it is looked up in: not empty, `.` or `..`, no separator of
/// any system, no control character, at most 255 bytes.
[[nodiscard]] inline bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > 255 || !is_utf8(name)) return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    auto const byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7F || c == '/' || c == '\\';
  });
}

/// A regular file open for reading. Reads are positional and may come from several threads at once.
class input_file {
 public:
  input_file() = default;

  /// Opens a file that the user named; links are followed, as the user chose the name.
  /// Throws `input_error` when there is no such regular file, `system_failure` when the system refuses.
  [[nodiscard]] static input_file open(std::filesystem::path const& path) { return {path, 0}; }

  /// Opens entry `name` of `folder`, a name that may come from a file. A link is followed only when it ends at a
  /// regular file inside `folder`, or in `blobs` of the same Hugging Face cache entry
  /// (`<entry>/snapshots/<revision>/` beside `<entry>/blobs/`). Errors as `open`.
  [[nodiscard]] static input_file open_inside(std::filesystem::path const& folder, std::string_view name) {
    std::filesystem::path const path = folder / std::filesystem::path(std::string(name));
    if (!is_plain_file_name(name))
      throw input_error(printable(folder.native(), 1000),
                        "expected a plain file name, found '" + printable(name) + "'");
    struct stat status;
    if (::lstat(path.c_str(), &status) != 0) refuse_open(path, errno);
    if (!S_ISLNK(status.st_mode)) return {path, O_NOFOLLOW};
    std::error_code code;
    std::filesystem::path const target = std::filesystem::canonical(path, code);
    if (code) refuse_open(path, code.value());
    std::filesystem::path const home = std::filesystem::canonical(folder, code);
    if (code) refuse_open(folder, code.value());
    bool allowed = contains(home, target);
    if (!allowed && home.parent_path().filename() == "snapshots")
      allowed = contains(home.parent_path().parent_path() / "blobs", target);
    if (!allowed)
      throw input_error(printable(path.native(), 1000),
                        "link leads out of the folder, to " + printable(target.native(), 1000));
    input_file file(target, O_NOFOLLOW);
    file.path_ = path;
    return file;
  }

  [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }
  /// The path as it is put into messages.
  [[nodiscard]] std::string place() const { return printable(path_.native(), 1000); }
  /// Size in bytes when it was opened.
  [[nodiscard]] std::uint64_t size() const noexcept { return static_cast<std::uint64_t>(opened_.st_size); }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }

  /// Fills `out` from `offset`. Throws `input_error` when the file has become too short, `system_failure` on EIO.
  void read_at(std::uint64_t offset, std::span<std::byte> out) const {
    if (offset > size() || out.size() > size() - offset)
      throw input_error(place(), "read of " + std::to_string(out.size()) + " bytes at " + std::to_string(offset) +
                                     ": expected inside " + std::to_string(size()) + " bytes");
    while (!out.empty()) {
      // One call moves at most 2 GiB on Linux, whatever is asked.
      std::size_t const want = std::min<std::size_t>(out.size(), std::size_t{1} << 30);
      ::ssize_t const got = ::pread(descriptor_.get(), out.data(), want, static_cast<::off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw system_error_at(path_, "read", errno);
      if (got == 0)
        throw input_error(place(), "changed while it was read: expected " + std::to_string(size()) +
                                       " bytes, found only " + std::to_string(offset));
      out = out.subspan(static_cast<std::size_t>(got));
      offset += static_cast<std::uint64_t>(got);
    }
  }

  /// Whether size, modification time and identity are those at opening, and the path still leads to this file.
  [[nodiscard]] bool unchanged() const {
    struct stat now;
    if (::fstat(descriptor_.get(), &now) != 0 || !same(now)) return false;
    return ::stat(path_.c_str(), &now) == 0 && same(now);
  }

  /// Throws `input_error` unless `unchanged()`. To be called before work that was made from the file is committed.
  void require_unchanged() const {
    if (!unchanged()) throw input_error(place(), "changed while it was read");
  }

 private:
  input_file(std::filesystem::path path, int flags) : path_(std::move(path)) {
    // The type is looked up before opening, because opening a device can already have an effect.
    if (::stat(path_.c_str(), &opened_) != 0) refuse_open(path_, errno);
    require_regular();
    descriptor_ = file_descriptor(::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags));
    if (!descriptor_) refuse_open(path_, errno);
    if (::fstat(descriptor_.get(), &opened_) != 0) throw system_error_at(path_, "fstat", errno);
    require_regular();
  }

  void require_regular() const {
    if (S_ISREG(opened_.st_mode)) return;
    char const* const found = S_ISDIR(opened_.st_mode)    ? "a folder"
                              : S_ISFIFO(opened_.st_mode) ? "a pipe"
                              : S_ISSOCK(opened_.st_mode) ? "a socket"
                              : S_ISLNK(opened_.st_mode)  ? "a link"
                                                          : "a device";
    throw input_error(place(), std::string("expected a regular file, found ") + found);
  }

  [[nodiscard]] bool same(struct stat const& now) const {
    return now.st_size == opened_.st_size && now.st_ino == opened_.st_ino && now.st_dev == opened_.st_dev &&
           now.st_mtim.tv_sec == opened_.st_mtim.tv_sec && now.st_mtim.tv_nsec == opened_.st_mtim.tv_nsec;
  }

  static bool contains(std::filesystem::path const& folder, std::filesystem::path const& file) {
    auto const ends = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
    return ends.first == folder.end() && ends.second != file.end();
  }

  /// A missing file is the user's fault, anything else the system's.
  [[noreturn]] static void refuse_open(std::filesystem::path const& path, int number) {
    if (number == ENOENT || number == ENOTDIR || number == ELOOP || number == ENAMETOOLONG)
      throw input_error(printable(path.native(), 1000), "cannot open: " + std::generic_category().message(number));
    throw system_error_at(path, "open", number);
  }

  std::filesystem::path path_;
  file_descriptor descriptor_;
  struct stat opened_ {};
};

}  // namespace v0
}  // namespace slimtrim
