// What reads activations or weights once: row cosines, squared column sums, quantise and pack, 2:4 masks by Wanda's score, and
// the Gram update against SGEMM.
#include "support.cuh"

#include <slimtrim/cuda/quantize.cuh>
#include <slimtrim/cuda/select.cuh>

namespace cuda_bench {

void bench_rows(session& s) {
  index_t const n = s.size(65536), m = s.size(4096);
  auto const a = random_halves(s, n * m, 1, 1), b = random_halves(s, n * m, 1, 2);
  cuda::device_buffer<float> out(n), sums(m);
  double const bytes = 2.0 * static_cast<double>(n * m);
  double const cosines = time_graph(s, 2, [&](int) {
    cuda::row_cosines<bfloat16, float>(s.on(), reading(a, n, m), reading(b, n, m), out.view());
  });
  s.add({"row cosines bf16 65536 x 4096", cosines, {{"of bandwidth", s.bandwidth_share(2 * bytes, cosines)}}});
  s.judge("row cosines, share of bandwidth", s.bandwidth_share(2 * bytes, cosines), 0.70, 0.85);
  double const squares = time_graph(s, 2, [&](int) {
    cuda::column_square_sums<bfloat16, float>(s.on(), reading(a, n, m), sums.view());
  });
  s.add({"squared column sums bf16 65536 x 4096", squares, {{"of bandwidth", s.bandwidth_share(bytes, squares)}}});

  cuda::device_buffer<std::uint32_t> words(n * m / 8);
  cuda::device_buffer<float> scales(n * m / 128);
  cuda::quantised_outputs const codes{words.matrix(n, m / 8), scales.matrix(n, m / 128), {}};
  double const packed = time_graph(s, 2, [&](int) {
    cuda::quantise<bfloat16>(s.on(), reading(a, n, m), uniform_grid{}, 128, scale_type::bfloat16, codes);
  });
  double const moved = bytes + bytes / 4 + bytes / 64;
  s.add({"quantise and pack bf16 65536 x 4096, g128", packed, {{"of bandwidth", s.bandwidth_share(moved, packed)}}});
  s.judge("quantise and pack, share of bandwidth", s.bandwidth_share(moved, packed), 0.70, 0.85);
  cuda::device_buffer<std::uint64_t> mask(n * m / 64);
  double const masks = time_graph(s, 2, [&](int) {
    cuda::select<bfloat16>(s.on(), reading(a, n, m), as_const(sums.view()), 2, 4, mask.matrix(n, m / 64));
  });
  s.add({"2:4 mask by Wanda, bf16 65536 x 4096", masks, {{"of bandwidth", s.bandwidth_share(bytes * (1 + 1.0 / 16), masks)}}});

  s.judge("Wanda score and 2:4 mask, share of bandwidth", s.bandwidth_share(bytes * (1 + 1.0 / 16), masks), 0.70, 0.85);
  index_t const tokens = s.size(16384);
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
  double const gram = time_graph(
      s, 2, [&](int) { cuda::gram_update<bfloat16, float>(s.on(), 1.0F, reading(a, tokens, m), H.matrix(m, m)); });
  line("Gram bf16 on tensor cores", gram);
  s.judge("Gram update against cuBLAS SGEMM", sgemm / gram, 5, 8);
  s.backend.synchronise();
}

}  // namespace cuda_bench
