// GPTQ: the batched sweep against one launch a column, as the method is usually run, and a whole Mixtral layer from
// weights to codes; and the layer by SparseGPT, in the same walk.
#include "support.cuh"

#include <slimtrim/cuda/gptq.cuh>
#include <slimtrim/cuda/sparsegpt.cuh>

#include <chrono>

namespace cuda_bench {

namespace {

// Upper triangular, ones on the diagonal, small elsewhere.
__global__ void fill_factor(float* R, index_t c, index_t count, std::uint32_t seed) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t at = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < count; at += step) {
    index_t const i = at / c % c, j = at % c;
    std::uint32_t x = static_cast<std::uint32_t>(at) * 0x9E3779B9U ^ seed;
    x = (x ^ x >> 16) * 0x85EBCA6BU;
    R[at] = i == j ? 1.0F : (i < j ? 0.01F * (static_cast<float>(x ^ x >> 13) * 0x1p-31F - 1) : 0.0F);
  }
}

// The baseline's two launches a column: choose, then correct the rest of the block.
__global__ void choose_column(float const* moving, float const* scales, float* errors, std::uint8_t* codes, index_t n,
                              index_t c, index_t j, index_t begin, float const* R, uniform_grid grid) {
  index_t const row = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= n) return;
  scale_and_zero const at{scales[j / 128 * n + row], grid.middle()};
  float const value = moving[row * c + j];
  std::uint32_t const code = grid.encode(value, at);
  codes[row * c + j] = static_cast<std::uint8_t>(code);
  errors[row * 128 + j - begin] = (value - grid.decode(code, at)) / R[j * c + j];
}
__global__ void correct_block(float* moving, float const* errors, float const* R, index_t n, index_t c, index_t j,
                              index_t begin, index_t end) {
  index_t const row = static_cast<index_t>(blockIdx.x) * 2 + threadIdx.x / 128, k = begin + threadIdx.x % 128;
  if (row < n && k > j && k < end) moving[row * c + k] -= errors[row * 128 + j - begin] * R[j * c + k];
}

void sweep(session& s, char const* name, index_t problems, index_t rows, index_t columns, bool judged) {
  index_t const groups = columns / 128;
  cuda::device_buffer<float> moving(problems * rows * columns), factors(problems * columns * columns),
      scales(problems * groups * rows), errors(rows * 128);
  cuda::device_buffer<std::uint8_t> codes(problems * rows * columns);
  cuda::device_buffer<double> losses(problems * rows);
  cuda::device_buffer<std::int32_t> group_of(problems * columns);
  std::vector<std::int32_t> numbers;
  for (index_t i = 0; i < problems * columns; ++i) numbers.push_back(static_cast<std::int32_t>(i % columns / 128));
  cuda::copy_to_device(s.stream, numbers.data(), problems * columns, group_of.data());
  cuda::launch(s.stream, {dim3(2048), 256, 0}, fill_factor, factors.data(), columns, problems * columns * columns, 1U);
  auto const fill = [&](cuda::device_buffer<float>& to, float size, bool positive) {
    auto const halves = random_halves(s, to.size(), size, 5, positive);
    cuda::copy_elements<bfloat16, float>(s.on(), reading(halves, 1, to.size()), to.matrix(1, to.size()));
  };
  fill(moving, 0.05F, false);
  fill(scales, 0.007F, true);
  cuda::sweep_batch const batch{problems,        rows,          columns, groups,       moving.data(), factors.data(),
                                group_of.data(), scales.data(), nullptr, codes.data(), losses.data()};
  uniform_grid const grid;
  double const operations =
      static_cast<double>(problems * rows) * static_cast<double>(columns) * static_cast<double>(columns);
  double const single = time_calls(
      s, 1, [&](int) { cuda::column_sweep(s.on(), batch, grid); }, 3);
  double const tensor = time_calls(
      s, 1, [&](int) { cuda::column_sweep(s.on(), batch, grid, cuda::float_precision::tensor_float); }, 3);
  double const columnwise = time_calls(
      s, 1,
      [&](int) {
        for (index_t p = 0; p < problems; ++p) {
          float* const mine = moving.data() + p * rows * columns;
          float const* const R = factors.data() + p * columns * columns;
          for (index_t begin = 0; begin < columns; begin += 128) {
            index_t const end = begin + 128;
            for (index_t j = begin; j < end; ++j) {
              cuda::launch(s.stream, {dim3(static_cast<unsigned>(ceil_div(rows, 256))), 256, 0}, choose_column, mine,
                           scales.data() + p * groups * rows, errors.data(), codes.data() + p * rows * columns, rows,
                           columns, j, begin, R, grid);
              cuda::launch(s.stream, {dim3(static_cast<unsigned>(ceil_div(rows, 2))), 256, 0}, correct_block, mine,
                           errors.data(), R, rows, columns, j, begin, end);
            }
            if (end == columns) continue;
            index_t const width = columns - end, sizes[2] = {rows, width}, steps[2] = {columns, 1},
                          r_sizes[2] = {128, width};
            cuda::gemm<float, float>(s.on(), -1.0F, reading(errors, rows, 128),
                                     device_matrix<float const>(R + begin * columns + end, r_sizes, steps), 1.0F,
                                     device_matrix<float>(mine + end, sizes, steps));
          }
        }
      },
      1);
  std::string const shape = std::string(", ") + name + ", " + std::to_string(problems) + " x " + std::to_string(rows) +
                            " x " + std::to_string(columns);
  s.add({"sweep by columns, two launches each" + shape, columnwise, {}});
  s.add({"sweep batched, float" + shape,
         single,
         {{"TFLOP/s", operations / (single * 1e6)}, {"x of columns", columnwise / single}}});
  s.add({"sweep batched, TF32 between blocks" + shape,
         tensor,
         {{"TFLOP/s", operations / (tensor * 1e6)}, {"x of columns", columnwise / tensor}}});
  if (!judged) return;
  s.judge("batched GPTQ sweep (float) against column-by-column launches", columnwise / single, 8, 20);
  s.judge("batched GPTQ sweep (TF32 between blocks) against column-by-column launches", columnwise / tensor, 8, 20);
}

// Seconds for all matrices of one layer, from weights and Hessians in device memory to packed codes, or pruned floats, in
// host memory.
void layer(session& s) {
  constexpr index_t experts = 8;
  index_t const hidden = s.size(4096), width = s.size(14336), tokens = s.size(8192);
  std::vector<cuda::device_buffer<bfloat16>> weights;
  cuda::device_buffer<float> small(hidden * hidden), large(width * width);
  for (auto* H : {&small, &large}) {
    index_t const c = H == &small ? hidden : width;
    auto const X = random_halves(s, tokens * c, 1, 11);
    cuda::check(cudaMemsetAsync(H->data(), 0, sizeof(float) * static_cast<std::size_t>(H->size()), s.stream), "zero");
    cuda::gram_update<bfloat16, float>(s.on(), 1.0F, reading(X, tokens, c), H->matrix(c, c));
    s.backend.synchronise();
  }
  std::vector<cuda::gptq_problem<bfloat16>> gate_up, down;
  for (std::uint32_t e = 0; e < experts; ++e) {
    cuda::gptq_problem<bfloat16> in, out;
    for (std::uint32_t m = 0; m < 3; ++m) {
      weights.push_back(random_halves(s, width * hidden, 0.05F, 10 * e + m));
      m < 2 ? in.weights.push_back(reading(weights.back(), width, hidden))
            : out.weights.push_back(reading(weights.back(), hidden, width));
    }
    in.hessian = reading(small, hidden, hidden);
    out.hessian = reading(large, width, width);
    gate_up.push_back(std::move(in));
    down.push_back(std::move(out));
  }
  // slim(some) returns how many rows did without the sweep.
  auto const run = [&](std::string const& name, std::vector<cuda::gptq_problem<bfloat16>> const& problems, std::size_t at_once, auto const& slim) {
    auto const begin = std::chrono::steady_clock::now();
    double kept = 0;
    for (std::size_t first = 0; first < problems.size(); first += at_once) {
      auto const last = std::min(problems.size(), first + at_once);
      std::vector<cuda::gptq_problem<bfloat16>> const some(problems.begin() + static_cast<std::ptrdiff_t>(first),
                                                           problems.begin() + static_cast<std::ptrdiff_t>(last));
      kept += slim(some);
    }
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    s.add({name + ", with guard and download", 1e6 * seconds, {{"rows without the sweep", kept}}});
    return seconds;
  };
  auto const quantise = [&](std::vector<cuda::gptq_problem<bfloat16>> const& some) {
    double kept = 0;
    for (auto const& stack : cuda::gptq(s.on(), some))
      for (auto const& one : stack) kept += static_cast<double>(one.report.rows_kept_rtn);
    return kept;
  };
  auto const prune = [&](std::vector<cuda::gptq_problem<bfloat16>> const& some) {
    std::vector<cuda::sparsegpt_problem<bfloat16>> same;
    for (auto const& problem : some) same.push_back({problem.weights, problem.hessian, {}});
    double kept = 0;
    for (auto const& stack : cuda::sparsegpt(s.on(), same, {.pattern = {.keep = 2, .of = 4}}))
      for (auto const& one : stack) kept += one ? static_cast<double>(one->report.rows_kept_wanda) : 0;
    return kept;
  };
  double const first = run("GPTQ gate and up of 8 experts", gate_up, 8, quantise),
               second = run("GPTQ down of 8 experts", down, 4, quantise);
  s.judge("GPTQ of one Mixtral MoE layer, seconds", first + second, 30, 10, true);
  static_cast<void>(run("SparseGPT 2:4 gate and up of 8 experts", gate_up, 4, prune));
  static_cast<void>(run("SparseGPT 2:4 down of 8 experts", down, 4, prune));
}

}  // namespace

void bench_gptq(session& s) {
  sweep(s, "Mixtral gate and up", 8, s.size(2 * 14336), s.size(4096), true);
  sweep(s, "DeepSeek gate and up", s.dry ? 4 : 64, s.size(2 * 1408), s.size(2048), false);
  layer(s);
}

}  // namespace cuda_bench
