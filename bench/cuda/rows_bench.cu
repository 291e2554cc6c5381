// What reads activations or weights once: row cosines, squared column sums, and the Gram update against SGEMM.
#include "support.cuh"

namespace cuda_bench {

void bench_rows(session& s) {
  index_t const n = 65536, m = 4096;
  auto const a = random_halves(s, n * m, 1, 1), b = random_halves(s, n * m, 1, 2);
  cuda::device_buffer<float> out(n), sums(m);
  double const bytes = 2.0 * static_cast<double>(n * m);
  double const cosines = time_graph(s, 2, [&](int) {
    cuda::row_cosines<bfloat16, float>(s.on(), reading(a, n, m), reading(b, n, m), out.view());
  });
  s.add({"row cosines bf16 65536 x 4096", cosines, {{"of bandwidth", s.bandwidth_share(2 * bytes, cosines)}}});
  double const squares = time_graph(s, 2, [&](int) {
    cuda::column_square_sums<bfloat16, float>(s.on(), reading(a, n, m), sums.view());
  });
  s.add({"squared column sums bf16 65536 x 4096", squares, {{"of bandwidth", s.bandwidth_share(bytes, squares)}}});

  index_t const tokens = 16384;
  cuda::device_buffer<float> H(m * m), wide(tokens * m);
  cuda::check(cudaMemsetAsync(H.data(), 0, sizeof(float) * static_cast<std::size_t>(m * m), s.stream), "zero");
  cuda::copy_elements<bfloat16, float>(s.on(), reading(a, tokens, m), wide.matrix(tokens, m));
  double const operations = 2.0 * static_cast<double>(tokens) * static_cast<double>(m) * static_cast<double>(m);
  double const sgemm = time_graph(s, 2, [&](int) {
    cuda::gemm<float, float>(s.on(), 1.0F, transposed(reading(wide, tokens, m)), reading(wide, tokens, m), 1.0F, H.matrix(m, m));
  });
  s.add({"Gram by cuBLAS SGEMM, 16384 tokens x 4096", sgemm, {{"TFLOP/s", operations / (sgemm * 1e6)}}});
  auto const line = [&](char const* name, double time) {
    s.add({name, time, {{"TFLOP/s as a full product", operations / (time * 1e6)}, {"x of SGEMM", sgemm / time}}});
  };
  line("Gram float, SSYRK", time_graph(s, 2, [&](int) {
         cuda::gram_update<float, float>(s.on(), 1.0F, reading(wide, tokens, m), H.matrix(m, m));
       }));
  line("Gram bf16 on tensor cores", time_graph(s, 2, [&](int) {
         cuda::gram_update<bfloat16, float>(s.on(), 1.0F, reading(a, tokens, m), H.matrix(m, m));
       }));
  s.backend.synchronise();
}

}  // namespace cuda_bench
