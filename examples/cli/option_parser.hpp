// The command line: the only file that knows the option parser is option_parser.cpp.
#pragma once

#include "command.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace cli {

/// Options that every command takes.
struct common_options {
  bool quiet = false;
  bool json = false;
  index_t threads = 0;  ///< 0: OMP_NUM_THREADS, else as many as the machine has
  std::uint64_t seed = 0;
};

/// What the command line asks for: a command, or a text to print (help, version).
struct parsed_line {
  command* chosen = nullptr;
  std::string text;
  common_options common;
};

/// Throws `slimtrim::usage_error`, with the place of the help.
[[nodiscard]] parsed_line parse_line(int count, char const* const* words,
                                     std::vector<std::unique_ptr<command>> const& commands);

/// The number of threads to use when the line does not say: OMP_NUM_THREADS when it is a positive number, else what
/// the machine has.
[[nodiscard]] index_t default_threads();

/// 20GB, 512MiB, 4096. Throws `slimtrim::usage_error` naming `option`.
[[nodiscard]] std::uint64_t parse_bytes(std::string const& text, std::string const& option);

}  // namespace cli
