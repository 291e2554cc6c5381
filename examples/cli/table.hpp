// Tables of text and numbers written as people read them.
#pragma once

#include <slimtrim/core/index.hpp>

#include <string>
#include <vector>

namespace cli {

/// Rows of cells; the first row is the head. Columns that hold numbers are aligned to the right.
class table {
 public:
  explicit table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::string markdown() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// 46.7 B, 12.9 M: with the units that parameters are counted in.
[[nodiscard]] std::string count_text(double value);
/// 93.4 GB, 14.5 MB: powers of 1000.
[[nodiscard]] std::string bytes_text(double value);
/// 0:07, 12:40, 3:05:00.
[[nodiscard]] std::string duration_text(double seconds);
/// A number with `digits` significant digits.
[[nodiscard]] std::string number_text(double value, int digits = 4);

}  // namespace cli
