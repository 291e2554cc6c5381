// What the tests of io/ share: a folder that disappears, files with given bytes, messages of exceptions.
#pragma once

#include <slimtrim/core/error.hpp>

#include <doctest/doctest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>

namespace io_test {

/// A fresh folder, removed with everything in it at the end of the test.
class temporary_folder {
 public:
  temporary_folder() {
    std::string name = (std::filesystem::temp_directory_path() / "slimtrim_io_XXXXXX").native();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = std::filesystem::canonical(name);
  }
  temporary_folder(temporary_folder const&) = delete;
  temporary_folder& operator=(temporary_folder const&) = delete;
  ~temporary_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::filesystem::path const& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(std::string const& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline void put(std::filesystem::path const& path, std::string_view bytes) {
  // A new file each time: some file systems wait for the disk when an old one is truncated and rewritten.
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  std::ofstream out(path, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(out.good());
}

[[nodiscard]] inline std::string get(std::filesystem::path const& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

[[nodiscard]] inline std::string little_endian(std::uint64_t value) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
  return out;
}

/// A file with this header text and this many zero bytes of data.
[[nodiscard]] inline std::string raw_safetensors(std::string_view header, std::size_t data_bytes) {
  return little_endian(header.size()) + std::string(header) + std::string(data_bytes, '\0');
}

/// The message of the slimtrim::error that `action` throws; empty when it throws none. Other exceptions pass.
template <class Action>
[[nodiscard]] std::string message_of(Action const& action) {
  try {
    action();
  } catch (slimtrim::error const& fault) {
    return fault.what();
  }
  return {};
}

[[nodiscard]] inline bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace io_test
