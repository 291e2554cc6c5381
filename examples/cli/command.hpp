// What a command of the program is. Commands see neither the option parser nor the terminal: one file each, cheap to
// compile.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/core/progress.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cli {

using slimtrim::index_t;

/// Declares a command's options. The value that a variable has when it is declared is its default, and is shown; an optional one
/// stays empty unless the line says something.
class option_set {
 public:
  option_set() = default;
  option_set(option_set const&) = delete;
  option_set& operator=(option_set const&) = delete;
  virtual ~option_set() = default;

  virtual void positional(std::string const& name, std::string& value, std::string const& help) = 0;
  virtual void positionals(std::string const& name, std::vector<std::string>& values, std::string const& help) = 0;
  virtual void text(std::string const& names, std::string& value, std::string const& help, bool required = false) = 0;
  virtual void number(std::string const& names, index_t& value, std::string const& help) = 0;
  virtual void number(std::string const& names, std::optional<index_t>& value, std::string const& help) = 0;
  virtual void real(std::string const& names, double& value, std::string const& help) = 0;
  virtual void real(std::string const& names, std::optional<double>& value, std::string const& help) = 0;
  virtual void flag(std::string const& names, bool& value, std::string const& help) = 0;
  /// Comma-separated numbers.
  virtual void numbers(std::string const& names, std::vector<index_t>& values, std::string const& help) = 0;
  /// A size such as 20GB, 512MiB or 4096.
  virtual void bytes(std::string const& names, std::uint64_t& value, std::string const& help) = 0;
  virtual void bytes(std::string const& names, std::optional<std::uint64_t>& value, std::string const& help) = 0;
};

/// What a running command has at hand. Everything here may be called from the main thread only.
struct session {
  std::uint64_t seed = 0;
  index_t threads = 1;
  bool json = false;   ///< results as JSON instead of tables
  bool quiet = false;
  slimtrim::executor* pool = nullptr;
  /// Shows progress, unless its stage has no name; throws `slimtrim::interrupted` after SIGINT or SIGTERM.
  slimtrim::progress_callback progress;

  /// A remark for people, to stderr, unless --quiet.
  void note(std::string_view text) const;
  /// Results, to stdout; false when nobody reads on. Throws `system_failure` when they cannot be written.
  bool print(std::string_view text) const;
};

class command {
 public:
  command() = default;
  command(command const&) = delete;
  command& operator=(command const&) = delete;
  virtual ~command() = default;

  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual std::string summary() const = 0;
  /// Shown at the end of the help.
  [[nodiscard]] virtual std::string examples() const = 0;
  virtual void declare(option_set& options) = 0;
  virtual void run(session const& at) = 0;
};

[[nodiscard]] std::unique_ptr<command> make_bench_command();
[[nodiscard]] std::unique_ptr<command> make_calibrate_command();
[[nodiscard]] std::unique_ptr<command> make_compress_command();
[[nodiscard]] std::unique_ptr<command> make_convert_command();
[[nodiscard]] std::unique_ptr<command> make_eval_command();
[[nodiscard]] std::unique_ptr<command> make_generate_command();
[[nodiscard]] std::unique_ptr<command> make_inspect_command();
[[nodiscard]] std::unique_ptr<command> make_plan_command();
[[nodiscard]] std::unique_ptr<command> make_recipe_command();
[[nodiscard]] std::unique_ptr<command> make_report_command();
[[nodiscard]] std::unique_ptr<command> make_stats_command();
[[nodiscard]] std::unique_ptr<command> make_synth_command();

}  // namespace cli
