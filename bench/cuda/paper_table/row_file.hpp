// One measured row: figures by name, kept as lines "name value", so that a stopped table goes on where it was.
#pragma once

#include <slimtrim/core/error.hpp>

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <utility>

namespace paper_table {

class row_file {
 public:
  void set(std::string const& name, double value) { figures_[name] = value; }
  void say(std::string const& name, std::string const& text) { texts_[name] = text; }
  [[nodiscard]] double get(std::string const& name) const {
    auto const at = figures_.find(name);
    return at == figures_.end() ? 0.0 : at->second;
  }
  [[nodiscard]] std::string text(std::string const& name) const {
    auto const at = texts_.find(name);
    return at == texts_.end() ? std::string() : at->second;
  }
  [[nodiscard]] bool empty() const { return figures_.empty() && texts_.empty(); }

  /// Whole or not at all.
  void save(std::string const& path) const {
    std::string const partial = path + ".partial";
    std::ofstream file(partial);
    file.precision(9);
    for (auto const& [name, value] : figures_) file << "number " << name << ' ' << value << '\n';
    for (auto const& [name, value] : texts_) file << "text " << name << ' ' << value << '\n';
    file.close();
    if (!file || std::rename(partial.c_str(), path.c_str()) != 0)
      throw slimtrim::system_failure(path + ": cannot be written");
  }
  /// Empty where there is no such file.
  [[nodiscard]] static row_file load(std::string const& path) {
    row_file row;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string kind, name;
      words >> kind >> name;
      if (kind == "number") {
        double value = 0;
        if (!(words >> value)) throw slimtrim::input_error(path, "line '" + line + "': expected a number");
        row.figures_[name] = value;
      } else if (kind == "text") {
        std::string rest;
        std::getline(words >> std::ws, rest);
        row.texts_[name] = rest;
      } else {
        throw slimtrim::input_error(path, "line '" + line + "': expected number or text");
      }
    }
    return row;
  }
  [[nodiscard]] std::string json() const {
    std::ostringstream out;
    out.precision(9);
    char const* between = "";
    for (auto const& [name, value] : figures_) out << std::exchange(between, ", ") << '"' << name << "\": " << value;
    for (auto const& [name, value] : texts_)
      out << std::exchange(between, ", ") << '"' << name << "\": \"" << value << '"';
    return "{" + out.str() + "}";
  }

 private:
  std::map<std::string, double> figures_;
  std::map<std::string, std::string> texts_;
};

}  // namespace paper_table
