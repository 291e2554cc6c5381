// Every exception that slimtrim throws, and what each kind of fault means to a program.
//
// The library only throws; the program maps `fault` to its exit code.
#pragma once

#include <slimtrim/core/config.hpp>

#include <stdexcept>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// Whose fault it is. The program's exit code follows from it: caller and usage 2, input 3, system 4,
/// numerical 5, interrupted 130.
enum class fault { caller, usage, input, system, numerical, interrupted };

/// Base of all exceptions of slimtrim. `what()` is one line: where, what was expected, what was found.
class error : public std::runtime_error {
 public:
  explicit error(std::string const& message, fault kind = fault::caller) : std::runtime_error(message), kind_(kind) {}
  [[nodiscard]] fault kind() const noexcept { return kind_; }

 private:
  fault kind_;
};

/// The command line or recipe asks for something that cannot be understood (exit code 2).
class usage_error : public error {
 public:
  explicit usage_error(std::string const& message) : error(message, fault::usage) {}
};

/// Something that the user named is missing, damaged or contradicts itself (exit code 3).
/// The message names the file, and the tensor or field inside it.
class input_error : public error {
 public:
  explicit input_error(std::string const& message) : error(message, fault::input) {}
  input_error(std::string_view place, std::string_view message)
      : error(std::string(place) + ": " + std::string(message), fault::input) {}
};

/// The operating system refused: EIO, ENOSPC, EACCES and their like (exit code 4).
class system_failure : public error {
 public:
  explicit system_failure(std::string const& message) : error(message, fault::system) {}
};

/// A computation has no finite answer and no documented fallback is left (exit code 5).
class numeric_error : public error {
 public:
  explicit numeric_error(std::string const& message) : error(message, fault::numerical) {}
};

/// The caller asked to stop, through a progress callback or a signal (exit code 130).
class interrupted : public error {
 public:
  interrupted() : error("interrupted", fault::interrupted) {}
};

/// Throws `error("<where>: <what>")` unless `condition` holds. For preconditions on the caller.
inline void expects(bool condition, char const* where, char const* what) {
  if (!condition) throw error(std::string(where) + ": " + what);
}

/// Throws `error` unless `found == expected`, with both values in the message.
inline void expects_equal(long long found, long long expected, char const* where, char const* what) {
  if (found != expected)
    throw error(std::string(where) + ": " + what + ": expected " + std::to_string(expected) + ", found " +
                std::to_string(found));
}

}  // namespace v0
}  // namespace slimtrim
