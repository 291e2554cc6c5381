// The report's figures as SVG: heat maps, and sizes against damage. Plain text in, plain text out; no scripts, no fonts of
// their own, readable on light and dark pages.
#pragma once

#include <slimtrim/core/index.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Text that may stand inside HTML or SVG.
[[nodiscard]] inline std::string escape_markup(std::string_view text) {
  std::string out;
  for (char const c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

/// A number with `digits` significant digits, without trailing noise; "-" for what is not a number.
[[nodiscard]] inline std::string short_number(double value, int digits = 4) {
  if (!std::isfinite(value)) return "-";
  std::array<char, 40> text{};
  auto const end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::general, digits);
  return {text.data(), end.ptr};
}

/// A table of values drawn as colours: rows are layers. NaN cells stay empty; marked cells are crossed out.
struct heat_map {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::string> rows;
  std::vector<std::vector<double>> values;
  std::vector<std::vector<bool>> marked{};  ///< same shape or empty
  std::string mark_meaning{};
  bool by_row = false;  ///< colours span each row by itself, for values that rows do not share a scale for
};

namespace detail {

struct value_span {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  [[nodiscard]] double share(double v) const { return high > low ? (v - low) / (high - low) : 0.5; }
};

// From pale to deep blue; perceived lightness falls evenly.
[[nodiscard]] inline std::string heat_colour(double share) {
  auto const mix = [&](double a, double b) { return static_cast<int>(std::lround(a + (b - a) * std::clamp(share, 0.0, 1.0))); };
  return "rgb(" + std::to_string(mix(237, 8)) + "," + std::to_string(mix(244, 64)) + "," + std::to_string(mix(252, 129)) + ")";
}

[[nodiscard]] inline std::string svg_text(double x, double y, std::string_view anchor, std::string_view text,
                                          std::string_view fill = "currentColor", double size = 12) {
  return "<text x=\"" + short_number(x, 6) + "\" y=\"" + short_number(y, 6) + "\" text-anchor=\"" + std::string(anchor) +
         "\" fill=\"" + std::string(fill) + "\" font-size=\"" + short_number(size) + "\">" + escape_markup(text) + "</text>\n";
}

[[nodiscard]] inline std::string svg_open(double width, double height, std::string_view title) {
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" viewBox=\"0 0 " + short_number(width, 6) + " " +
         short_number(height, 6) + "\" width=\"" + short_number(width, 6) + "\" height=\"" + short_number(height, 6) +
         "\" font-family=\"system-ui, sans-serif\"><title>" + escape_markup(title) + "</title>\n";
}

}  // namespace detail

/// The heat map as SVG, one cell a value with the value written into it.
[[nodiscard]] inline std::string svg_of(heat_map const& map) {
  constexpr double left = 78, top = 44, cell_width = 58, cell_height = 24;
  double const width = left + cell_width * static_cast<double>(map.columns.size()) + 12;
  double const height = top + cell_height * static_cast<double>(map.rows.size()) + (map.mark_meaning.empty() ? 12 : 34);
  std::string svg = detail::svg_open(width, height, map.title);
  svg += detail::svg_text(0, 14, "start", map.title, "currentColor", 13);
  for (std::size_t c = 0; c < map.columns.size(); ++c)
    svg += detail::svg_text(left + cell_width * (static_cast<double>(c) + 0.5), top - 8, "middle", map.columns[c],
                            "currentColor", 11);
  detail::value_span all;
  for (auto const& row : map.values)
    for (double const v : row) all.add(v);
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    double const y = top + cell_height * static_cast<double>(r);
    svg += detail::svg_text(left - 8, y + 16, "end", map.rows[r]);
    detail::value_span span = all;
    if (map.by_row) {
      span = {};
      for (double const v : map.values[r]) span.add(v);
    }
    for (std::size_t c = 0; c < map.values[r].size(); ++c) {
      double const v = map.values[r][c], x = left + cell_width * static_cast<double>(c);
      if (!std::isfinite(v)) continue;
      double const share = span.share(v);
      svg += "<rect x=\"" + short_number(x + 1, 6) + "\" y=\"" + short_number(y + 1, 6) + "\" width=\"" +
             short_number(cell_width - 2) + "\" height=\"" + short_number(cell_height - 2) + "\" rx=\"3\" fill=\"" +
             detail::heat_colour(share) + "\"/>\n";
      svg += detail::svg_text(x + cell_width / 2, y + 16, "middle", short_number(v, 3), share > 0.5 ? "#fff" : "#0b2239", 11);
      if (!map.marked.empty() && map.marked[r][c])
        svg += "<line x1=\"" + short_number(x + 4, 6) + "\" y1=\"" + short_number(y + cell_height - 4, 6) + "\" x2=\"" +
               short_number(x + cell_width - 4, 6) + "\" y2=\"" + short_number(y + 4, 6) +
               "\" stroke=\"#d1350f\" stroke-width=\"2.5\"/>\n";
    }
  }
  if (!map.mark_meaning.empty()) svg += detail::svg_text(0, height - 8, "start", map.mark_meaning, "#d1350f", 12);
  return svg + "</svg>\n";
}

/// One model in the plot of size against damage.
struct plotted_model {
  std::string name;
  double bytes = 0;
  double damage = 0;  ///< mean KL in nats
};

/// Bytes across, KL upwards (square-root scale, so that small differences stay visible), a labelled dot a model. joined: the
/// models, by rising size, are a front, and a line shows the least damage at each size.
[[nodiscard]] inline std::string svg_of(std::vector<plotted_model> const& models, std::string const& title, bool joined = false) {
  constexpr double width = 640, height = 340, left = 60, right = 150, top = 34, bottom = 44;
  std::string svg = detail::svg_open(width, height, title);
  svg += detail::svg_text(0, 14, "start", title, "currentColor", 13);
  double most_bytes = 1, most_damage = 1e-6;
  for (plotted_model const& m : models) {
    most_bytes = std::max(most_bytes, m.bytes);
    most_damage = std::max(most_damage, m.damage);
  }
  auto const x_of = [&](double bytes) { return left + (width - left - right) * bytes / most_bytes; };
  auto const y_of = [&](double damage) {
    return height - bottom - (height - top - bottom) * std::sqrt(std::max(damage, 0.0) / most_damage);
  };
  svg += "<path d=\"M" + short_number(left) + " " + short_number(top) + " V" + short_number(height - bottom) + " H" +
         short_number(width - right + 20) + "\" fill=\"none\" stroke=\"currentColor\" stroke-opacity=\".45\"/>\n";
  for (double const share : {0.25, 0.5, 0.75, 1.0}) {
    svg += detail::svg_text(x_of(most_bytes * share), height - bottom + 16, "middle",
                            short_number(most_bytes * share / 1e6, 3) + " MB", "currentColor", 11);
    double const damage = most_damage * share * share;
    svg += detail::svg_text(left - 6, y_of(damage) + 4, "end", short_number(damage, 2), "currentColor", 11);
  }
  svg += detail::svg_text(left + (width - left - right) / 2, height - 8, "middle", "bytes of the safetensors files");
  svg += detail::svg_text(left - 6, top - 6, "end", "KL (nats)", "currentColor", 11);
  if (joined && models.size() > 1) {
    std::string path;
    for (plotted_model const& m : models) {
      // Up to the next size nothing better is known: level first, then down.
      if (path.empty()) path = "M" + short_number(x_of(m.bytes), 6) + " " + short_number(y_of(m.damage), 6);
      else path += " H" + short_number(x_of(m.bytes), 6) + " V" + short_number(y_of(m.damage), 6);
    }
    svg += "<path d=\"" + path + "\" fill=\"none\" stroke=\"#1769aa\" stroke-width=\"1.5\" stroke-opacity=\".6\"/>\n";
  }
  for (plotted_model const& m : models) {
    svg += "<circle cx=\"" + short_number(x_of(m.bytes), 6) + "\" cy=\"" + short_number(y_of(m.damage), 6) +
           "\" r=\"5\" fill=\"#1769aa\"/>\n";
    svg += detail::svg_text(x_of(m.bytes) + 9, y_of(m.damage) + 4, "start", m.name, "currentColor", 11);
  }
  return svg + "</svg>\n";
}

}  // namespace v0
}  // namespace slimtrim
