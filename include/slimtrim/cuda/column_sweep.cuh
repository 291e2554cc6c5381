// The engine of GPTQ and SparseGPT on the device: many matrices of one shape at a time, 128 columns a launch, and one
// product for the rest.
//
// Rows are independent given the factor R (H⁻¹ = Rᵀ R). A block owns 128 rows of one matrix, one a thread, and walks
// its columns alone, so nothing waits for another block and 128 columns cost one launch instead of 256. Within the
// columns, 16 at a time are in registers; what their errors do to the others is added in one pass over shared memory.
// Before a block of columns is walked, one batched product subtracts from it what all errors before have done
// ("left-looking": a column is read and written once, where the order of slimtrim::column_sweep touches everything to
// the right of every block).
//
// A column that is done is needed no more, so its place in the matrix takes its errors, and the product finds them
// there. What the columns become is decided by a `Choice`: here the nearest value of a grid, in sparse_sweep.cuh what
// pruning leaves.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/blas.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/slim/quantize/grid.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Matrices of one shape in one sweep; everything contiguous in device memory, columns in sweep order. Groups and what
/// belongs to a grid are none where nothing is rounded.
struct sweep_batch {
  index_t problems = 0;
  index_t rows = 0;
  index_t columns = 0;
  index_t groups = 0;
  float* moving = nullptr;                 // [problems, rows, columns]: W before, e = (w - q) / R_jj after
  float const* factors = nullptr;          // [problems, columns, columns]: R, upper
  std::int32_t const* group_of = nullptr;  // [problems, columns]: group of the column at each position
  float* scales = nullptr;                 // [problems, groups, rows]
  std::uint8_t* zeros = nullptr;           // the same; none for a symmetric grid
  std::uint8_t* codes = nullptr;           // [problems, rows, columns], written
  double* losses = nullptr;                // [problems, rows], written: each row's sum of e²
};

/// How the sweep's kernel is shaped.
struct sweep_shape {
  static constexpr int rows = 128;     // of a block, one a thread
  static constexpr int columns = 128;  // at most, of a launch
  static constexpr int panel = 16;     // columns in registers
  // Rows apart by odd or by 16-byte steps, so that neither rows nor columns meet in a bank.
  static constexpr int value_stride = rows + 1, factor_stride = panel + 4, code_stride = rows + 4;
  static constexpr std::size_t bytes_without_codes =
      sizeof(float) * static_cast<std::size_t>(columns * (value_stride + factor_stride));
  static constexpr std::size_t shared_bytes =
      bytes_without_codes + static_cast<std::size_t>(columns * code_stride);
};

namespace detail {

// Columns in registers: positions first .. first + width - 1 of the sweep order, one row a thread.
struct sweep_panel {
  index_t problem, row, first;
  int width;             // at most sweep_shape::panel
  bool live;             // false: there is no such row, and all values are zeros
  float const* factors;  // from the panel's first row of R on, in shared memory
  float value[sweep_shape::panel];

  [[nodiscard]] __device__ float pivot(int i) const { return factors[i * sweep_shape::factor_stride + i]; }
};

// The choice of GPTQ, and what every choice has, as slimtrim::column_chooser on the host; each thread has a copy.
struct grid_choice {
  static constexpr bool has_codes = true;
  uniform_grid grid;

  [[nodiscard]] __device__ __forceinline__ scale_and_zero at(sweep_batch const& batch, index_t problem, index_t row,
                                                             index_t position) const {
    index_t const group = batch.group_of[problem * batch.columns + position],
                  place = (problem * batch.groups + group) * batch.rows + row;
    return {batch.scales[place], batch.zeros != nullptr ? static_cast<int>(batch.zeros[place]) : grid.middle()};
  }
  // The value nearest to `wanted` for column i of the panel, and its code.
  __device__ __forceinline__ float round(sweep_batch const& batch, sweep_panel const& panel, int i, float wanted,
                                         std::uint8_t& code) const {
    scale_and_zero scale{1.0F, grid.middle()};
    if (panel.live) scale = at(batch, panel.problem, panel.row, panel.first + i);
    std::uint32_t const nearest = grid.encode(wanted, scale);
    code = static_cast<std::uint8_t>(nearest);
    return grid.decode(nearest, scale);
  }

  // Before the first and behind the last column of a panel.
  __device__ __forceinline__ void begin_panel(sweep_batch const&, sweep_panel const&) {}
  __device__ __forceinline__ void end_panel(sweep_batch const&, sweep_panel const&) {}
  // The final value of column i, those before it being done; a choice without codes is given none to write.
  __device__ __forceinline__ float choose(sweep_batch const& batch, sweep_panel const& panel, int i,
                                          std::uint8_t* code) {
    return round(batch, panel, i, panel.value[i], *code);
  }
  // What is kept of a column that is done until all are; and then what goes to its place, its error, the rest being
  // written elsewhere.
  [[nodiscard]] static __device__ __forceinline__ float remember(float error, float) { return error; }
  __device__ __forceinline__ float finish(sweep_batch const& batch, index_t problem, index_t row, index_t position,
                                          float remembered, std::uint8_t const* code) const {
    batch.codes[(problem * batch.rows + row) * batch.columns + position] = *code;
    return remembered;
  }
};

// Grid: 128 rows, problem. Two blocks a multiprocessor, which shared memory allows: for more, the compiler would spill.
template <class Choice>
__global__ void __launch_bounds__(sweep_shape::rows, 2)
    sweep_columns(sweep_batch batch, Choice choice, index_t begin, int width) {
  constexpr int panel = sweep_shape::panel, value_stride = sweep_shape::value_stride,
                factor_stride = sweep_shape::factor_stride;
  auto* const factors = reinterpret_cast<float*>(shared_memory());
  float* const values = factors + sweep_shape::columns * factor_stride;
  auto* const codes = reinterpret_cast<std::uint8_t*>(values + sweep_shape::columns * value_stride);
  auto const code_at = [&](int k, int r) {
    return Choice::has_codes ? codes + k * sweep_shape::code_stride + r : nullptr;
  };
  int const thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  index_t const problem = blockIdx.y, first_row = static_cast<index_t>(blockIdx.x) * sweep_shape::rows,
                c = batch.columns;
  int const live =
      static_cast<int>(batch.rows - first_row < sweep_shape::rows ? batch.rows - first_row : sweep_shape::rows);
  float* const mine = batch.moving + (problem * batch.rows + first_row) * c + begin;
  for (int r = warp; r < sweep_shape::rows; r += sweep_shape::rows / 32)
    for (int k = lane; k < width; k += 32) values[k * value_stride + r] = r < live ? mine[r * c + k] : 0.0F;

  float const* const R = batch.factors + problem * c * c + begin * c + begin;
  index_t const row = first_row + thread;
  float sum = 0;
  for (int first = 0; first < width; first += panel) {
    sync_block();
    if (thread < sweep_shape::columns) {
      float* const to = factors + thread * factor_stride;
#pragma unroll
      for (int i = 0; i < panel; ++i) to[i] = thread < width && first + i < width ? R[(first + i) * c + thread] : 0.0F;
    }
    sync_block();
    int const there = width - first < panel ? width - first : panel;
    sweep_panel now{problem, row, begin + first, there, thread < live, factors + first * factor_stride, {}};
    float e[panel];
#pragma unroll
    for (int i = 0; i < panel; ++i) {
      now.value[i] = i < there ? values[(first + i) * value_stride + thread] : 0.0F;
      e[i] = 0;
    }
    choice.begin_panel(batch, now);
#pragma unroll
    for (int i = 0; i < panel; ++i) {
      if (i >= there) break;
      float const target = choice.choose(batch, now, i, code_at(first + i, thread));
      e[i] = (now.value[i] - target) / now.pivot(i);
      sum += e[i] * e[i];
      values[(first + i) * value_stride + thread] = Choice::remember(e[i], target);
#pragma unroll
      for (int k = i + 1; k < panel; ++k)
        if (k < there) now.value[k] -= e[i] * now.factors[k * factor_stride + i];
    }
    choice.end_panel(batch, now);
    for (int k = first + panel; k < width; ++k) {
      float x = values[k * value_stride + thread];
#pragma unroll
      for (int i = 0; i < panel; ++i) x -= e[i] * factors[k * factor_stride + i];
      values[k * value_stride + thread] = x;
    }
  }
  if (thread < live) batch.losses[problem * batch.rows + row] += static_cast<double>(sum);
  sync_block();
  for (int r = warp; r < live; r += sweep_shape::rows / 32)
    for (int k = lane; k < width; k += 32)
      mine[r * c + k] = choice.finish(batch, problem, first_row + r, begin + k, values[k * value_stride + r],
                                      code_at(k, r));
}

// Columns begin .. end - 1 of every matrix -= the errors first .. last - 1 times their rows of R.
inline void subtract_errors(context& on, sweep_batch const& batch, float_precision precision, index_t first,
                            index_t last, index_t begin, index_t end) {
  if (first == last) return;
  index_t const c = batch.columns;
  float const minus = -1, one = 1;
  // Row-major matrices are cuBLAS' transposes: (columns x rows) -= Rᵀ (columns x errors) eᵀ (errors x rows).
  check(cublasGemmStridedBatchedEx(on.blas(), CUBLAS_OP_N, CUBLAS_OP_N, blas_size(end - begin), blas_size(batch.rows),
                                   blas_size(last - first), &minus, batch.factors + first * c + begin, CUDA_R_32F,
                                   blas_size(c), c * c, batch.moving + first, CUDA_R_32F, blas_size(c), batch.rows * c,
                                   &one, batch.moving + begin, CUDA_R_32F, blas_size(c), batch.rows * c,
                                   blas_size(batch.problems), blas_compute<float>(precision), CUBLAS_GEMM_DEFAULT),
        "cuda::column_sweep");
}

// Chunks of columns one after another: brought up to date, `up_to_date(begin, end)`, then walked.
template <class Choice, class F>
void sweep(context& on, sweep_batch const& batch, Choice const& choice, index_t chunk, F const& up_to_date,
           float_precision precision) {
  expects(batch.problems <= 65535, "cuda::column_sweep", "matrices: expected at most 65535");
  if (batch.problems == 0 || batch.rows == 0) return;
  check(cudaMemsetAsync(batch.losses, 0, sizeof(double) * static_cast<std::size_t>(batch.problems * batch.rows),
                        on.stream()),
        "cuda::column_sweep");
  dim3 const blocks(blocks_for(ceil_div(batch.rows, sweep_shape::rows)), static_cast<unsigned>(batch.problems));
  std::size_t const bytes = Choice::has_codes ? sweep_shape::shared_bytes : sweep_shape::bytes_without_codes;
  for (index_t start = 0; start < batch.columns; start += chunk) {
    index_t const stop = start + chunk < batch.columns ? start + chunk : batch.columns;
    subtract_errors(on, batch, precision, 0, start, start, stop);
    up_to_date(start, stop);
    for (index_t begin = start; begin < stop; begin += sweep_shape::columns) {
      index_t const end = begin + sweep_shape::columns < stop ? begin + sweep_shape::columns : stop;
      subtract_errors(on, batch, precision, start, begin, begin, end);
      launch(on.stream(), {blocks, sweep_shape::rows, bytes}, sweep_columns<Choice>, batch, choice, begin,
             static_cast<int>(end - begin));
    }
  }
}

}  // namespace detail

/// For every matrix of the batch and j = 0, 1, ...: q = nearest grid value of W_j, e = (W_j - q) / R_jj, W_k -= e R_jk
/// for all k > j: slimtrim::column_sweep with a uniform grid, up to the order in which float sums are formed.
///
/// chunk: columns that become up to date together; before chunk [begin, end) is walked, `up_to_date(begin, end)` may
/// set the scales of its groups from `moving` (GPTQ in natural order; chunks are groups then). In `tensor_float`
/// corrections are off by a part in two thousand of themselves, far below the step of the grid that they are rounded
/// to. Enqueued; deterministic. Cost: rows columns² multiply-adds a matrix, nearly all in cuBLAS; memory traffic of a
/// block's product: the errors before it, read once.
template <class F>
void column_sweep(context& on, sweep_batch const& batch, uniform_grid const& grid, index_t chunk, F const& up_to_date,
                  float_precision precision = float_precision::single) {
  grid.check();
  expects(chunk >= 1, "cuda::column_sweep", "chunk: expected at least one column");
  expects((batch.zeros == nullptr) == grid.symmetric, "cuda::column_sweep",
          "zeros: expected exactly for a grid with zero points");
  detail::sweep(on, batch, detail::grid_choice{grid}, chunk, up_to_date, precision);
}

/// The same with all scales set before.
inline void column_sweep(context& on, sweep_batch const& batch, uniform_grid const& grid,
                         float_precision precision = float_precision::single) {
  column_sweep(
      on, batch, grid, sweep_shape::columns, [](index_t, index_t) {}, precision);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
