// The two ceilings of this card: how fast memory is read, and how fast cuBLAS multiplies bfloat16.
#include "support.cuh"

namespace cuda_bench {

namespace {

__global__ void __launch_bounds__(512) sum_words(cuda::words4 const* from, index_t count, std::uint32_t* out) {
  std::uint32_t sum = 0;
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
#pragma unroll 8
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    cuda::words4 const v = cuda::load_once(from + i);
    sum += v.word[0] ^ v.word[1] ^ v.word[2] ^ v.word[3];
  }
  if (sum == 0x12345678U) *out = sum;
}

}  // namespace

void bench_ceilings(session& s) {
  index_t const count = index_t{1} << (s.dry ? 16 : 27);  // 2 GiB
  cuda::device_buffer<cuda::words4> memory(count), other(count);
  cuda::device_buffer<std::uint32_t> out(1);
  cuda::launch(s.stream, {dim3(4096), 256, 0}, fill_bits, reinterpret_cast<std::uint32_t*>(memory.data()), 4 * count, 1U);
  double best = 1e30;
  for (unsigned blocks : {2U, 4U, 8U, 16U})
    best = std::min(best, time_graph(s, 1, [&](int) {
      cuda::launch(s.stream, {dim3(blocks * static_cast<unsigned>(s.on().multiprocessors())), 512, 0}, sum_words, memory.data(), count,
                   out.data());
    }));
  s.read_bandwidth = 16.0 * static_cast<double>(count) / (best * 1e-6);
  s.add({"read 2 GiB", best, {{"TB/s", s.read_bandwidth * 1e-12}}});
  double const copy = time_graph(s, 1, [&](int) {
    cuda::check(cudaMemcpyAsync(other.data(), memory.data(), 16 * static_cast<std::size_t>(count), cudaMemcpyDeviceToDevice, s.stream), "copy");
  });
  s.add({"copy 2 GiB, read and written", copy, {{"TB/s", 32.0 * static_cast<double>(count) / (copy * 1e6)}}});
  index_t const n = s.size(8192);
  auto const A = random_halves(s, n * n, 1, 1), B = random_halves(s, n * n, 1, 2);
  cuda::device_buffer<float> C(n * n);
  double const product = time_graph(s, 3, [&](int) {
    cuda::gemm<bfloat16, float>(s.on(), 1.0F, reading(A, n, n), transposed(reading(B, n, n)), 0.0F, C.matrix(n, n));
  });
  double const operations = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  s.cublas_rate = operations / (product * 1e-6);
  s.add({"cuBLAS bf16 8192 x 8192 x 8192", product, {{"TFLOP/s", s.cublas_rate * 1e-12}}});
}

}  // namespace cuda_bench
