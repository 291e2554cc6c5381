// Figures as SVG: escaping, numbers, cells, marks, dots.
#include <slimtrim/pipeline/report_figures.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>

namespace pipeline_report_figures_test {

using namespace slimtrim;

namespace {

std::size_t count(std::string const& text, std::string const& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

constexpr double missing = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("markup is escaped") {
  CHECK(escape_markup("a<b>&\"'\n\x01") == "a&lt;b&gt;&amp;&quot;&#39;  ");
  CHECK(escape_markup("Überblick 测试") == "Überblick 测试");
  CHECK(escape_markup("").empty());
}

TEST_CASE("numbers") {
  CHECK(short_number(0.123456) == "0.1235");
  CHECK(short_number(0.5) == "0.5");
  CHECK(short_number(12345.6, 6) == "12345.6");
  CHECK(short_number(-2) == "-2");
  CHECK(short_number(missing) == "-");
  CHECK(short_number(std::numeric_limits<double>::infinity()) == "-");
}

TEST_CASE("heat map: a cell a value, none for NaN, crosses where marked") {
  heat_map map;
  map.title = "<title>";
  map.columns = {"one", "two", "three"};
  map.rows = {"layer 0", "layer 1"};
  map.values = {{0.0, 0.25, 1.0}, {missing, 0.5, 0.75}};
  std::string const plain = svg_of(map);
  CHECK(count(plain, "<rect") == 5);
  CHECK(count(plain, "<line") == 0);
  CHECK(count(plain, "&lt;title&gt;") == 2);
  CHECK(count(plain, "<title>") == 1);
  CHECK(count(plain, "rgb(237,244,252)") == 1);  // the lowest value
  CHECK(count(plain, "rgb(8,64,129)") == 1);     // the highest
  CHECK(count(plain, ">0.25</text>") == 1);
  CHECK(plain.rfind("<svg", 0) == 0);
  CHECK(plain.find("</svg>") != std::string::npos);
  CHECK(count(plain, "<text") == count(plain, "</text>"));
  map.marked = {{true, false, false}, {true, true, false}};
  map.mark_meaning = "gone & away";
  std::string const marked = svg_of(map);
  CHECK(count(marked, "<line") == 2);  // not the empty cell
  CHECK(count(marked, "gone &amp; away") == 1);
  CHECK(svg_of(map) == marked);
  // By row each row has its own darkest cell.
  map.by_row = true;
  CHECK(count(svg_of(map), "rgb(8,64,129)") == 2);
}

TEST_CASE("heat maps without values or with equal ones") {
  CHECK(count(svg_of(heat_map{}), "<rect") == 0);
  heat_map flat{.title = "", .columns = {"a", "b"}, .rows = {"r"}, .values = {{2.0, 2.0}}};
  std::string const svg = svg_of(flat);
  CHECK(count(svg, "<rect") == 2);
  CHECK(svg.find("nan") == std::string::npos);
}

TEST_CASE("size against damage: a labelled dot a model, positions inside") {
  std::string const svg = svg_of({{"base", 10e6, 0.0}, {"a<b", 5e6, 0.25}, {"c", 2.5e6, 1.0}}, "Plot");
  CHECK(count(svg, "<circle") == 3);
  CHECK(count(svg, "a&lt;b</text>") == 1);
  CHECK(count(svg, ">10 MB</text>") == 1);
  // Half the bytes lie halfway; a quarter of the damage lies half up (square root).
  CHECK(count(svg, "<circle cx=\"275\" cy=\"165\"") == 1);
  CHECK(count(svg, "<circle cx=\"490\" cy=\"296\"") == 1);
  CHECK(svg_of(std::vector<plotted_model>{}, "empty").find("nan") == std::string::npos);
  // A front: one more path, level up to the next size, then down to its damage.
  CHECK(count(svg, "<path") == 1);
  std::string const front = svg_of({{"1", 2.5e6, 1.0}, {"2", 5e6, 0.25}, {"3", 10e6, 0.0}}, "Front", true);
  CHECK(count(front, "<path") == 2);
  CHECK(front.find("d=\"M167.5 34 H275 V165 H490 V296\"") != std::string::npos);
  CHECK(count(svg_of({{"1", 2.5e6, 1.0}}, "Front", true), "<path") == 1);
}

}  // namespace pipeline_report_figures_test
