// Parts of a view: rows, columns, blocks, transposes. None of them touches an element or checks a bound: who takes views from
// outside checks extents on entry.
#pragma once

#include <slimtrim/tensor/tensor_view.hpp>

namespace slimtrim {
inline namespace v0 {

/// Elements first .. first + count - 1 of dimension `d`.
template <class T, int Rank, space Space>
[[nodiscard]] SLIMTRIM_HD constexpr tensor_view<T, Rank, Space> slice(tensor_view<T, Rank, Space> x, int d,
                                                                      index_t first, index_t count) {
  x.data += first * x.strides[d];
  x.extents[d] = count;
  return x;
}

/// Index `at` of the first dimension: a view of one rank less.
template <class T, int Rank, space Space>
  requires(Rank >= 2)
[[nodiscard]] SLIMTRIM_HD constexpr tensor_view<T, Rank - 1, Space> subtensor(tensor_view<T, Rank, Space> x,
                                                                              index_t at) {
  tensor_view<T, Rank - 1, Space> part;
  part.data = x.data + at * x.strides[0];
  for (int d = 1; d < Rank; ++d) {
    part.extents[d - 1] = x.extents[d];
    part.strides[d - 1] = x.strides[d];
  }
  return part;
}

/// Row i of a matrix: [columns].
template <class T, space Space>
[[nodiscard]] SLIMTRIM_HD constexpr vector_view<T, Space> row(matrix_view<T, Space> x, index_t i) {
  return subtensor(x, i);
}

/// Column j of a matrix: [rows].
template <class T, space Space>
[[nodiscard]] SLIMTRIM_HD constexpr vector_view<T, Space> column(matrix_view<T, Space> x, index_t j) {
  vector_view<T, Space> part;
  part.data = x.data + j * x.strides[1];
  part.extents[0] = x.extents[0];
  part.strides[0] = x.strides[0];
  return part;
}

/// Rows first .. first + count - 1.
template <class T, space Space>
[[nodiscard]] SLIMTRIM_HD constexpr matrix_view<T, Space> rows(matrix_view<T, Space> x, index_t first, index_t count) {
  return slice(x, 0, first, count);
}

/// Columns first .. first + count - 1.
template <class T, space Space>
[[nodiscard]] SLIMTRIM_HD constexpr matrix_view<T, Space> columns(matrix_view<T, Space> x, index_t first,
                                                                  index_t count) {
  return slice(x, 1, first, count);
}

/// The same elements with rows and columns exchanged.
template <class T, space Space>
[[nodiscard]] SLIMTRIM_HD constexpr matrix_view<T, Space> transposed(matrix_view<T, Space> x) {
  matrix_view<T, Space> flipped;
  flipped.data = x.data;
  for (int d = 0; d < 2; ++d) {
    flipped.extents[d] = x.extents[1 - d];
    flipped.strides[d] = x.strides[1 - d];
  }
  return flipped;
}

/// The main diagonal.
template <class T, space Space>
[[nodiscard]] SLIMTRIM_HD constexpr vector_view<T, Space> diagonal(matrix_view<T, Space> x) {
  vector_view<T, Space> part;
  part.data = x.data;
  part.extents[0] = x.extents[0] < x.extents[1] ? x.extents[0] : x.extents[1];
  part.strides[0] = x.strides[0] + x.strides[1];
  return part;
}

/// The same view, for reading.
template <class T, int Rank, space Space>
[[nodiscard]] SLIMTRIM_HD constexpr tensor_view<T const, Rank, Space> as_const(tensor_view<T, Rank, Space> x) {
  return x;
}

}  // namespace v0
}  // namespace slimtrim
