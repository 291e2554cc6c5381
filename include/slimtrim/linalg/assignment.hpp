// The linear assignment problem, solved exactly: which neuron of one expert corresponds to which of another.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The column of each row that minimises sum_i cost(i, column_i), every column used at most once.
///
/// Shortest augmenting paths with potentials (Kuhn 1955; Jonker and Volgenant 1987). cost: [n, m] with n <= m, finite.
/// Cost O(n^2 m) time, O(n + m) memory besides the matrix. Deterministic; among optimal assignments the one that the
/// search meets first, columns in ascending order. Throws `error` on n > m, `numeric_error` on NaN or infinity.
[[nodiscard]] inline std::vector<index_t> assignment(matrix_view<double const> cost) {
  index_t const n = cost.extent(0), m = cost.extent(1);
  expects(n <= m, "assignment", "cost: expected at most as many rows as columns");
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j)
      if (!std::isfinite(cost(i, j))) throw numeric_error("assignment: cost: expected finite elements");
  constexpr double infinity = std::numeric_limits<double>::infinity();
  auto const at = [](auto& values, index_t i) -> auto& { return values[static_cast<std::size_t>(i)]; };
  // Row n and column m are sentinels: the row whose path is being searched starts at column m.
  std::vector<double> row_potential(static_cast<std::size_t>(n) + 1, 0.0),
      column_potential(static_cast<std::size_t>(m) + 1, 0.0);
  std::vector<index_t> row_of(static_cast<std::size_t>(m) + 1, n), previous(static_cast<std::size_t>(m) + 1, m);
  std::vector<double> distance;
  std::vector<bool> visited;
  for (index_t start = 0; start < n; ++start) {
    at(row_of, m) = start;
    distance.assign(static_cast<std::size_t>(m) + 1, infinity);
    visited.assign(static_cast<std::size_t>(m) + 1, false);
    index_t column = m;
    do {
      visited[static_cast<std::size_t>(column)] = true;
      index_t const row = at(row_of, column);
      index_t next = m;
      double least = infinity;
      for (index_t j = 0; j < m; ++j) {
        if (visited[static_cast<std::size_t>(j)]) continue;
        double const reduced = cost(row, j) - at(row_potential, row) - at(column_potential, j);
        if (reduced < at(distance, j)) {
          at(distance, j) = reduced;
          at(previous, j) = column;
        }
        if (at(distance, j) < least) {
          least = at(distance, j);
          next = j;
        }
      }
      for (index_t j = 0; j <= m; ++j) {
        if (visited[static_cast<std::size_t>(j)]) {
          at(row_potential, at(row_of, j)) += least;
          at(column_potential, j) -= least;
        } else {
          at(distance, j) -= least;
        }
      }
      column = next;
    } while (at(row_of, column) != n);
    while (column != m) {
      index_t const before = at(previous, column);
      at(row_of, column) = at(row_of, before);
      column = before;
    }
  }
  std::vector<index_t> column_of(static_cast<std::size_t>(n), 0);
  for (index_t j = 0; j < m; ++j)
    if (at(row_of, j) != n) at(column_of, at(row_of, j)) = j;
  return column_of;
}

}  // namespace v0
}  // namespace slimtrim
