// Reductions over rows and columns: dots, squared column sums, and the cosine of matching rows in one read of both.
//
// Every sum ends in double and is cut by shapes that do not depend on the device, so results are the same on any GPU.
#pragma once

#include <slimtrim/core/numeric.hpp>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/reduce.cuh>
#include <slimtrim/cuda/words.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

inline constexpr int rows_a_block = 8;             // one warp a row
inline constexpr index_t rows_a_column_panel = 512;
inline constexpr index_t dot_panel = 8192;

// One block sums one panel of the vectors.
template <class T>
__global__ void __launch_bounds__(256) dot_panels(device_vector<T const> x, device_vector<T const> y, double* sums) {
  __shared__ double slots[8];
  index_t const first = static_cast<index_t>(blockIdx.x) * dot_panel;
  index_t const last = first + dot_panel < x.extent(0) ? first + dot_panel : x.extent(0);
  double sum = 0;
  for (index_t i = first + threadIdx.x; i < last; i += 256) sum += static_cast<double>(x(i)) * static_cast<double>(y(i));
  sum = sum_of_block(sum, slots);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block: thread t adds the panels t, t + 256, ... in order, then the threads are added.
static __global__ void __launch_bounds__(256) add_panels(double const* sums, index_t count, double* total) {
  __shared__ double slots[8];
  double sum = 0;
  for (index_t i = threadIdx.x; i < count; i += 256) sum += sums[i];
  sum = sum_of_block(sum, slots);
  if (threadIdx.x == 0) *total = sum;
}

template <class T>
__global__ void __launch_bounds__(32 * rows_a_block) dot_rows(device_matrix<T const> X, device_matrix<T const> Y,
                                                              device_vector<T> out) {
  index_t const i = static_cast<index_t>(blockIdx.x) * rows_a_block + threadIdx.x / 32;
  if (i >= X.extent(0)) return;
  double sum = 0;
  for (index_t j = threadIdx.x % 32; j < X.extent(1); j += 32) sum += static_cast<double>(X(i, j)) * static_cast<double>(Y(i, j));
  sum = sum_of_warp(sum);
  if (threadIdx.x % 32 == 0) out(i) = static_cast<T>(sum);
}

// A thread sums one column over one panel of rows.
template <class T>
__global__ void __launch_bounds__(256) square_column_panels(device_matrix<T const> X, double* sums) {
  index_t const j = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x, m = X.extent(1);
  if (j >= m) return;
  index_t const first = static_cast<index_t>(blockIdx.y) * rows_a_column_panel;
  index_t const last = first + rows_a_column_panel < X.extent(0) ? first + rows_a_column_panel : X.extent(0);
  double sum = 0;
  for (index_t i = first; i < last; ++i) {
    double const value = static_cast<double>(static_cast<accumulator_t<T>>(X(i, j)));
    sum += value * value;
  }
  sums[blockIdx.y * m + j] = sum;
}

template <class Result>
__global__ void __launch_bounds__(256) add_column_panels(double const* sums, index_t panels, device_vector<Result> out) {
  index_t const j = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x, m = out.extent(0);
  if (j >= m) return;
  double sum = 0;
  for (index_t p = 0; p < panels; ++p) sum += sums[p * m + j];
  out(j) = static_cast<Result>(sum);
}

// The three sums of a cosine.
struct cosine_sums {
  double xy = 0, xx = 0, yy = 0;
  bool finite = true;
};

// Elements of a row that one lane reads at a time: 16 bytes.
template <class T>
inline constexpr int lane_elements = 16 / static_cast<int>(sizeof(T));

template <class T>
__device__ __forceinline__ void add_to_cosine(cosine_sums& sums, T const* x, T const* y, int count, double x_unit,
                                              double y_unit) {
  // Within 16 bytes in float (double for double), across them in double.
  accumulator_t<T> xy = 0, xx = 0, yy = 0;
  for (int e = 0; e < count; ++e) {
    auto const a = static_cast<accumulator_t<T>>(static_cast<double>(static_cast<accumulator_t<T>>(x[e])) * x_unit);
    auto const b = static_cast<accumulator_t<T>>(static_cast<double>(static_cast<accumulator_t<T>>(y[e])) * y_unit);
    xy += a * b;
    xx += a * a;
    yy += b * b;
  }
  sums.xy += static_cast<double>(xy);
  sums.xx += static_cast<double>(xx);
  sums.yy += static_cast<double>(yy);
}

template <class T>
__device__ __forceinline__ void add_to_cosine(cosine_sums& sums, T const* x, T const* y, int count) {
  accumulator_t<T> xy = 0, xx = 0, yy = 0;
  for (int e = 0; e < count; ++e) {
    auto const a = static_cast<accumulator_t<T>>(x[e]), b = static_cast<accumulator_t<T>>(y[e]);
    xy += a * b;
    xx += a * a;
    yy += b * b;
  }
  sums.xy += static_cast<double>(xy);
  sums.xx += static_cast<double>(xx);
  sums.yy += static_cast<double>(yy);
}

// Squares within these bounds lost nothing to underflow or overflow.
template <class T>
[[nodiscard]] __device__ __forceinline__ bool safe_square_on_device(double square) {
  double const limit = std::is_same_v<T, double> ? 1e280 : 1e28;
  return square > 1 / limit && square < limit;
}

template <class T>
[[nodiscard]] __device__ double largest_of_row(device_matrix<T const> X, index_t i) {
  double largest = 0;
  for (index_t j = threadIdx.x % 32; j < X.extent(1); j += 32) {
    double value = static_cast<double>(static_cast<accumulator_t<T>>(X(i, j)));
    value = value < 0 ? -value : value;
    if (!(value <= largest) && largest == largest) largest = value;  // NaN stays
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    double const other = shuffle_xor(largest, mask);
    if (!(other <= largest) && largest == largest) largest = other;
  }
  return largest;
}

// A warp owns a row and reads both operands once, 16 bytes a lane where rows are aligned. Rows whose squares leave the
// range of float are read again, scaled to a largest element of one.
template <class T, class Result>
__global__ void __launch_bounds__(32 * rows_a_block)
    cosine_rows(device_matrix<T const> X, device_matrix<T const> Y, bool wide, device_vector<Result> out,
                device_report* report) {
  index_t const i = static_cast<index_t>(blockIdx.x) * rows_a_block + threadIdx.x / 32, m = X.extent(1);
  if (i >= X.extent(0)) return;
  int const lane = static_cast<int>(threadIdx.x % 32);
  constexpr int step = lane_elements<T>;
  cosine_sums sums;
  if (wide) {
    auto const* const x = reinterpret_cast<words4 const*>(X.data + i * X.stride(0));
    auto const* const y = reinterpret_cast<words4 const*>(Y.data + i * Y.stride(0));
#pragma unroll 2
    for (index_t at = lane; at < m / step; at += 32) {
      struct alignas(16) elements {
        T value[std::size_t{step}];
      };
      auto const a = bits_as<elements>(load_once(x + at)), b = bits_as<elements>(load_once(y + at));
      add_to_cosine(sums, a.value, b.value, step);
    }
  } else {
    for (index_t j = lane; j < m; j += 32) {
      T const a = X(i, j), b = Y(i, j);
      add_to_cosine(sums, &a, &b, 1);
    }
  }
  sums.xy = sum_of_warp(sums.xy);
  sums.xx = sum_of_warp(sums.xx);
  sums.yy = sum_of_warp(sums.yy);
  double cosine = 0;
  if (safe_square_on_device<T>(sums.xx) && safe_square_on_device<T>(sums.yy)) {
    cosine = sums.xy / sqrt(sums.xx) / sqrt(sums.yy);
  } else {
    double const x_largest = largest_of_row(X, i), y_largest = largest_of_row(Y, i);
    if (!(x_largest < 1e300 && y_largest < 1e300)) {
      if (lane == 0) raise_to(&report->not_finite, static_cast<unsigned long long>(i) + 1);
    } else if (x_largest > 0 && y_largest > 0) {
      cosine_sums scaled;
      for (index_t j = lane; j < m; j += 32) {
        T const a = X(i, j), b = Y(i, j);
        add_to_cosine(scaled, &a, &b, 1, 1 / x_largest, 1 / y_largest);
      }
      scaled.xy = sum_of_warp(scaled.xy);
      scaled.xx = sum_of_warp(scaled.xx);
      scaled.yy = sum_of_warp(scaled.yy);
      cosine = scaled.xy / sqrt(scaled.xx) / sqrt(scaled.yy);
    }
  }
  if (lane == 0) out(i) = static_cast<Result>(cosine > 1 ? 1.0 : (cosine < -1 ? -1.0 : cosine));
}

template <class T>
[[nodiscard]] bool reads_wide(device_matrix<T const> X) {
  constexpr index_t step = lane_elements<T>;
  return reinterpret_cast<std::uintptr_t>(X.data) % 16 == 0 && (X.stride(1) == 1 || X.extent(1) <= 1) &&
         X.extent(1) % step == 0 && X.stride(0) % step == 0;
}

[[nodiscard]] inline dim3 blocks_of_rows(index_t rows) { return dim3(blocks_for(ceil_div(rows, rows_a_block))); }

}  // namespace detail

/// sum_i x_i y_i in double, in panels of 8192 added in an order that is always the same. Waits for the device.
template <class T>
[[nodiscard]] double dot(context& on, device_vector<T const> x, device_vector<T const> y) {
  index_t const panels = ceil_div(x.extent(0), detail::dot_panel);
  if (panels == 0) return 0;
  auto const sums = on.scratch_for<double>(panels + 1);
  launch(on.stream(), {dim3(blocks_for(panels)), 256, 0}, detail::dot_panels<T>, x, y, sums.data());
  launch(on.stream(), {dim3(1), 256, 0}, detail::add_panels, sums.data(), panels, sums.data() + panels);
  double total = 0;
  copy_to_host(on.stream(), sums.data() + panels, 1, &total);
  return total;
}

/// out_i = sum_j X_ij Y_ij, in double, rounded once. X, Y: [n, m] in any layout; out: [n].
template <class T>
void row_dots(context& on, device_matrix<T const> X, device_matrix<T const> Y, device_vector<T> out) {
  launch(on.stream(), {detail::blocks_of_rows(X.extent(0)), 32 * detail::rows_a_block, 0}, detail::dot_rows<T>, X, Y, out);
}

/// out_j = sum_i X_ij², in double over panels of 512 rows. X: [n, m] in any layout and storage type; out: [m]. Scratch
/// m ceil(n / 512) doubles.
template <class T, class Result>
void column_square_sums(context& on, device_matrix<T const> X, device_vector<Result> out) {
  index_t const panels = ceil_div(X.extent(0), detail::rows_a_column_panel), m = X.extent(1);
  expects(panels <= 65535, "cuda::column_square_sums", "rows: expected at most 512 * 65535");
  auto const sums = on.scratch_for<double>(panels * m);
  unsigned const across = blocks_for(ceil_div(m, 256));
  launch(on.stream(), {dim3(across, static_cast<unsigned>(panels)), 256, 0}, detail::square_column_panels<T>, X, sums.data());
  launch(on.stream(), {dim3(across), 256, 0}, detail::add_column_panels<Result>, sums.data(), panels, out);
}

/// out_i = cos(X_i, Y_i), 0 where either row is zero: slimtrim::row_cosines in one read of X and Y. A row with a NaN or
/// infinity gets 0 and is reported at the next context::synchronise. 2 n m elements read, n written.
template <class T, class Result>
void row_cosines(context& on, device_matrix<T const> X, device_matrix<T const> Y, device_vector<Result> out) {
  bool const wide = detail::reads_wide(X) && detail::reads_wide(Y);
  launch(on.stream(), {detail::blocks_of_rows(X.extent(0)), 32 * detail::rows_a_block, 0}, detail::cosine_rows<T, Result>, X,
         Y, wide, out, on.report());
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
