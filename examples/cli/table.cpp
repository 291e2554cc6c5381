#include "table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstddef>

namespace cli {

namespace {

// Characters, not bytes: continuation bytes of UTF-8 take no room.
std::size_t width_of(std::string const& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0u) != 0x80u; }));
}

bool is_numeric(std::string const& text) {
  return text.empty() || text == "-" || std::isdigit(static_cast<unsigned char>(text[0])) != 0 ||
         (text.size() > 1 && (text[0] == '-' || text[0] == '+') &&
          std::isdigit(static_cast<unsigned char>(text[1])) != 0);
}

std::string scaled(double value, std::array<char const*, 6> const& units, char const* separator) {
  std::size_t unit = 0;
  while (std::fabs(value) >= 999.95 && unit + 1 < units.size()) {
    value /= 1000;
    ++unit;
  }
  bool const whole = unit == 0 && value == std::floor(value);
  return fmt::format("{:.{}f}{}{}", value, whole ? 0 : 1, separator, units[unit]);
}

}  // namespace

std::string table::text() const {
  std::size_t columns = 0;
  for (auto const& row : rows_) columns = std::max(columns, row.size());
  std::vector<std::size_t> widths(columns, 0);
  std::vector<bool> numeric(columns, rows_.size() > 1);
  for (std::size_t r = 0; r < rows_.size(); ++r)
    for (std::size_t c = 0; c < rows_[r].size(); ++c) {
      widths[c] = std::max(widths[c], width_of(rows_[r][c]));
      if (r > 0 && !is_numeric(rows_[r][c])) numeric[c] = false;
    }
  std::string out;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (std::size_t c = 0; c < rows_[r].size(); ++c) {
      std::string const& cell = rows_[r][c];
      std::string const room(widths[c] - width_of(cell), ' ');
      if (c > 0) line += "  ";
      line += numeric[c] ? room + cell : cell + room;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
    if (r == 0) {
      std::string rule;
      for (std::size_t c = 0; c < columns; ++c) rule += (c > 0 ? "  " : "") + std::string(widths[c], '-');
      out += rule + "\n";
    }
  }
  return out;
}

std::string table::markdown() const {
  std::string out;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    for (std::string const& cell : rows_[r]) out += "| " + cell + " ";
    out += "|\n";
    if (r > 0) continue;
    for (std::size_t c = 0; c < rows_[r].size(); ++c)
      out += rows_.size() > 1 && c < rows_[1].size() && is_numeric(rows_[1][c]) ? "|---:" : "|---";
    out += "|\n";
  }
  return out;
}

std::string count_text(double value) { return scaled(value, {"", "k", "M", "B", "T", "Q"}, value < 999.95 ? "" : " "); }

std::string bytes_text(double value) { return scaled(value, {"B", "kB", "MB", "GB", "TB", "PB"}, " "); }

std::string duration_text(double seconds) {
  auto const whole = static_cast<long long>(std::max(0.0, std::floor(std::min(seconds, 1e9) + 0.5)));
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string number_text(double value, int digits) { return fmt::format("{:.{}g}", value, digits); }

}  // namespace cli
