// Hessians that grow on the device while calibration rows pass: nothing but the finished sums comes to the host.
#pragma once

#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/cuda/gram.cuh>
#include <slimtrim/cuda/memory.cuh>

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Which rows of a matrix are summed, and by how much each counts: row i is `from`'s row of[i] (null: i itself) times
/// factors[i] (null: one).
struct summed_rows {
  std::int32_t const* of = nullptr;
  float const* factors = nullptr;
};

namespace detail {

template <class T, class To>
struct pick_row {
  device_matrix<T const> from;
  summed_rows rows;
  device_matrix<To> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const {
    T const value = from(rows.of != nullptr ? rows.of[i] : i, j);
    if constexpr (std::is_same_v<T, To>)
      to(i, j) = value;
    else
      to(i, j) = (rows.factors != nullptr ? rows.factors[i] : 1.0F) * static_cast<To>(value);
  }
};

}  // namespace detail

/// Sums of x xᵀ for host matrices H, each d² floats of device memory from its first rows until it is collected.
class device_sums {
 public:
  /// What is kept for H += sum of f² x xᵀ over `count` rows x of `from`, [>= count, d]. Rows of 16 bits without factors are
  /// summed exactly as products go (gram.cuh); with factors they are scaled in float first. Enqueued.
  template <class T>
  void add(context& on, device_matrix<T const> from, index_t count, summed_rows rows, matrix_view<float> H) {
    expects_equal(H.extent(0), from.extent(1), "cuda::device_sums", "rows of H");
    expects_equal(H.extent(1), from.extent(1), "cuda::device_sums", "columns of H");
    if (count == 0) return;
    index_t const d = from.extent(1);
    device_matrix<float> const sum = kept(on, H);
    if (rows.factors != nullptr) {
      auto const memory = on.scratch_for<float>(count * d);
      device_matrix<float> const scaled(memory.data(), count, d);
      for_each_element(on, count, d, false, detail::pick_row<T, float>{from, rows, scaled});
      detail::syrk_lower<float>(on, 1.0F, as_const(scaled), sum);
    } else if (rows.of != nullptr) {
      auto const memory = on.scratch_for<T>(count * d);
      device_matrix<T> const picked(memory.data(), count, d);
      for_each_element(on, count, d, false, detail::pick_row<T, T>{from, rows, picked});
      gemm<T, float>(on, 1.0F, transposed(as_const(picked)), as_const(picked), 1.0F, sum);
    } else {
      auto const X = slimtrim::rows(from, 0, count);
      gemm<T, float>(on, 1.0F, transposed(X), X, 1.0F, sum);
    }
  }

  /// Adds everything to its host matrix, a few rows at a time, and gives the memory back.
  void collect(context& on) {
    for (auto& [data, entry] : sums_) {
      matrix_view<float> const H = entry.into;
      index_t const d = H.extent(0);
      device_matrix<float> const sum = transposed(entry.sum.matrix(d, d));
      for_each_element(on, d, d, true, detail::mirror_lower<float>{sum});
      index_t const rows_a_piece = std::clamp<index_t>((index_t{4} << 20) / d, 1, d);
      staged_.resize(static_cast<std::size_t>(rows_a_piece * d));
      for (index_t first = 0; first < d; first += rows_a_piece) {
        index_t const count = std::min(rows_a_piece, d - first);
        copy_to_host(on.stream(), entry.sum.data() + first * d, count * d, staged_.data());
        for (index_t i = 0; i < count; ++i)
          for (index_t j = 0; j < d; ++j) H(first + i, j) += staged_[static_cast<std::size_t>(i * d + j)];
      }
      entry.sum = device_buffer<float>();
    }
    sums_.clear();
  }

 private:
  struct held {
    matrix_view<float> into;
    device_buffer<float> sum;
  };
  // Column-major, as cuBLAS takes it; the lower triangle decides.
  [[nodiscard]] device_matrix<float> kept(context& on, matrix_view<float> H) {
    index_t const d = H.extent(0);
    auto at = sums_.find(H.data);
    if (at == sums_.end()) {
      at = sums_.emplace(H.data, held{H, device_buffer<float>(d * d)}).first;
      check(cudaMemsetAsync(at->second.sum.data(), 0, sizeof(float) * static_cast<std::size_t>(d * d), on.stream()),
            "cuda::device_sums");
    }
    return transposed(at->second.sum.matrix(d, d));
  }

  std::map<float*, held> sums_{};
  std::vector<float> staged_{};
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
