#include "option_parser.hpp"

#include <slimtrim/core/config.hpp>
#include <slimtrim/core/error.hpp>

#include <CLI/CLI.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace cli {

namespace {

using slimtrim::usage_error;

/// `option` as people write it, from the parser's list of names.
std::string last_name(std::string const& names) {
  std::size_t const comma = names.rfind(',');
  return comma == std::string::npos ? names : names.substr(comma + 1);
}

class parser_options final : public option_set {
 public:
  explicit parser_options(CLI::App& app) : app_(app) {}

  void positional(std::string const& name, std::string& value, std::string const& help) override {
    app_.add_option(name, value, help)->required()->type_name("");
  }
  void positionals(std::string const& name, std::vector<std::string>& values, std::string const& help) override {
    app_.add_option(name, values, help)->required()->type_name("");
  }
  void text(std::string const& names, std::string& value, std::string const& help, bool required) override {
    auto* const option = app_.add_option(names, value, with_default(help, value))->type_name(placeholder(names));
    if (required) option->required();
  }
  void number(std::string const& names, index_t& value, std::string const& help) override {
    add(names, with_default(help, value == 0 ? "" : std::to_string(value)), "N", [names, &value](std::string const& word) {
      value = whole(word, last_name(names));
    });
  }
  void number(std::string const& names, std::optional<index_t>& value, std::string const& help) override {
    add(names, help, "N", [names, &value](std::string const& word) { value = whole(word, last_name(names)); });
  }
  void real(std::string const& names, double& value, std::string const& help) override {
    std::ostringstream shown;
    shown << value;
    add(names, with_default(help, shown.str()), "X", [names, &value](std::string const& word) {
      value = finite(word, last_name(names));
    });
  }
  void real(std::string const& names, std::optional<double>& value, std::string const& help) override {
    add(names, help, "X", [names, &value](std::string const& word) { value = finite(word, last_name(names)); });
  }
  void flag(std::string const& names, bool& value, std::string const& help) override {
    app_.add_flag(names, value, help);
  }
  void numbers(std::string const& names, std::vector<index_t>& values, std::string const& help) override {
    add(names, help, "N,N,...", [names, &values](std::string const& word) {
      values.clear();
      for (std::size_t at = 0; at <= word.size();) {
        std::size_t const comma = std::min(word.find(',', at), word.size());
        values.push_back(whole(word.substr(at, comma - at), last_name(names)));
        at = comma + 1;
      }
    });
  }
  void bytes(std::string const& names, std::uint64_t& value, std::string const& help) override {
    add(names, help, "SIZE",
        [names, &value](std::string const& word) { value = parse_bytes(word, last_name(names)); });
  }
  void bytes(std::string const& names, std::optional<std::uint64_t>& value, std::string const& help) override {
    add(names, help, "SIZE",
        [names, &value](std::string const& word) { value = parse_bytes(word, last_name(names)); });
  }

  static index_t whole(std::string const& word, std::string const& option) {
    index_t value = 0;
    auto const end = std::from_chars(word.data(), word.data() + word.size(), value);
    if (end.ec != std::errc() || end.ptr != word.data() + word.size() || value < 0)
      throw usage_error(option + ": expected a whole number, found '" + word + "'");
    return value;
  }

  static double finite(std::string const& word, std::string const& option) {
    double value = 0;
    auto const end = std::from_chars(word.data(), word.data() + word.size(), value);
    if (end.ec != std::errc() || end.ptr != word.data() + word.size() || !std::isfinite(value))
      throw usage_error(option + ": expected a number, found '" + word + "'");
    return value;
  }

  void add(std::string const& names, std::string const& help, char const* type,
           std::function<void(std::string const&)> const& take) {
    app_.add_option_function<std::string>(names, take, help)->type_name(type);
  }

 private:
  static std::string with_default(std::string const& help, std::string const& value) {
    return value.empty() ? help : help + " [" + value + "]";
  }
  static std::string placeholder(std::string const& names) {
    std::string word = last_name(names);
    word.erase(0, word.find_first_not_of('-'));
    for (char& c : word) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : (c == '-' ? '_' : c));
    return word;
  }

  CLI::App& app_;
};

void declare_common(CLI::App& app, common_options& common) {
  parser_options options(app);
  app.add_flag("-q,--quiet", common.quiet, "No progress and no remarks on stderr")->group("Common options");
  app.add_flag("--json", common.json, "Results as one JSON object on stdout")->group("Common options");
  app.add_option_function<std::string>(
         "--threads",
         [&common](std::string const& word) {
           common.threads = parser_options::whole(word, "--threads");
           if (common.threads < 1 || common.threads > 4096)
             throw usage_error("--threads: expected 1 to 4096, found '" + word + "'");
         },
         "Threads to use [OMP_NUM_THREADS, else all of the machine]; results do not depend on it")
      ->type_name("N")
      ->group("Common options");
  app.add_option_function<std::string>(
         "--seed",
         [&common](std::string const& word) {
           auto const end = std::from_chars(word.data(), word.data() + word.size(), common.seed);
           if (end.ec != std::errc() || end.ptr != word.data() + word.size())
             throw usage_error("--seed: expected a whole number below 2^64, found '" + word + "'");
         },
         "Seed of everything random [0]")
      ->type_name("N")
      ->group("Common options");
}

/// A misspelt command is told from a missing one.
void require_known(std::string const& word, std::vector<std::unique_ptr<command>> const& commands) {
  std::string names;
  for (std::unique_ptr<command> const& each : commands) {
    if (each->name() == word) return;
    names += (names.empty() ? "" : ", ") + each->name();
  }
  throw usage_error("command: expected one of " + names + ", found '" + word + "'");
}

/// One line, whatever the parser says.
std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

}  // namespace

std::uint64_t parse_bytes(std::string const& text, std::string const& option) {
  static constexpr std::array<std::pair<std::string_view, double>, 10> units{{{"", 1},
                                                                              {"B", 1},
                                                                              {"kB", 1e3},
                                                                              {"MB", 1e6},
                                                                              {"GB", 1e9},
                                                                              {"TB", 1e12},
                                                                              {"KiB", 0x1p10},
                                                                              {"MiB", 0x1p20},
                                                                              {"GiB", 0x1p30},
                                                                              {"TiB", 0x1p40}}};
  double value = 0;
  auto const end = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit(end.ptr, static_cast<std::size_t>(text.data() + text.size() - end.ptr));
  if (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (auto const& [name, factor] : units)
    if (end.ec == std::errc() && unit == name && value >= 0 && value * factor < 0x1p62)
      return static_cast<std::uint64_t>(std::llround(value * factor));
  throw usage_error(option + ": expected a size such as 20GB, 512MiB or 4096, found '" + text + "'");
}

index_t default_threads() {
  index_t const machine = std::max<index_t>(1, static_cast<index_t>(std::thread::hardware_concurrency()));
  char const* const variable = std::getenv("OMP_NUM_THREADS");
  if (variable == nullptr) return machine;
  // OpenMP allows a list, one number for each level of nesting.
  std::string_view const text(variable);
  index_t value = 0;
  auto const end = std::from_chars(text.data(), text.data() + text.size(), value);
  bool const usable = end.ec == std::errc() && value >= 1 && value <= 4096 &&
                      (end.ptr == text.data() + text.size() || *end.ptr == ',');
  return usable ? value : machine;
}

parsed_line parse_line(int count, char const* const* words, std::vector<std::unique_ptr<command>> const& commands) {
  parsed_line result;
  CLI::App app("Compresses Mixture-of-Experts language models: Expert Trimming and Expert Slimming.", "slimtrim");
  app.set_version_flag("--version", "slimtrim " SLIMTRIM_VERSION_STRING);
  app.require_subcommand(1);
  app.footer(
      "slimtrim COMMAND --help shows a command's options.\n"
      "Exit codes: 0 done; 2 usage; 3 input missing or wrong; 4 system; 5 numerical; 130 interrupted; 143 terminated.");
  app.get_formatter()->column_width(34);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.get_formatter()->label("Subcommands", "Commands");
  for (std::unique_ptr<command> const& each : commands) {
    CLI::App* const sub = app.add_subcommand(each->name(), each->summary());
    sub->footer(each->examples());
    sub->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
    parser_options options(*sub);
    each->declare(options);
    declare_common(*sub, result.common);
    sub->callback([&result, &each] { result.chosen = each.get(); });
  }
  if (count > 1 && words[1][0] != '-') require_known(words[1], commands);
  try {
    app.parse(count, words);
  } catch (CLI::Success const& wanted) {
    // Help and version arrive as exceptions; the parser itself writes their text.
    std::ostringstream out;
    app.exit(wanted, out, out);
    result.text = out.str();
  } catch (CLI::ParseError const& failure) {
    std::string where = "slimtrim";
    for (CLI::App const* const sub : app.get_subcommands()) where += " " + sub->get_name();
    throw usage_error(one_line(failure.what()) + " (see " + where + " --help)");
  }
  return result;
}

}  // namespace cli
