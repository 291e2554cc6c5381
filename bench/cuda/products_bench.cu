// Y = X Wᵀ for one to many tokens: a naive kernel, the few-token and the many-token kernel with 4-bit and bfloat16
// weights, 2:4 sparse 4-bit weights, what `product` chooses, and cuBLAS. Weights rotate among enough copies to leave
// L2.
#include "support.cuh"

#include <slimtrim/cuda/few_tokens.cuh>
#include <slimtrim/cuda/many_tokens.cuh>
#include <slimtrim/cuda/product.cuh>
#include <slimtrim/cuda/warpgroup_tokens.cuh>

#include <memory>

namespace cuda_bench {

namespace {

// The bottom of the ladder: a thread an output, elements found one by one.
__global__ void naive_product(cuda::tile_weight_view w, device_matrix<bfloat16 const> X, device_matrix<float> Y) {
  index_t const row = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x, token = blockIdx.y;
  if (row >= w.rows) return;
  float sum = 0;
  for (index_t c = 0; c < w.columns; ++c) sum += static_cast<float>(X(token, c)) * cuda::element_at(w, row, c);
  Y(token, row) = sum;
}

// The least over shapes of what is judged, by number of tokens.
struct least_of_shapes {
  std::map<index_t, double> bandwidth, against_cublas;
  static void keep(std::map<index_t, double>& in, index_t tokens, double value) {
    auto const [at, added] = in.emplace(tokens, value);
    if (!added && value < at->second) at->second = value;
  }
};

void shape(session& s, index_t rows, index_t columns, least_of_shapes& least) {
  constexpr auto codes = cuda::tile_kind::codes4, halves = cuda::tile_kind::bfloat16, sparse = cuda::tile_kind::sparse4;
  int const copies = s.copies(8);
  std::vector<std::unique_ptr<random_tiles>> w, dense, thin;
  std::vector<cuda::device_buffer<bfloat16>> plain;
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(copies); ++i) {
    w.push_back(std::make_unique<random_tiles>(s, rows, columns, codes, 100 + i));
    dense.push_back(std::make_unique<random_tiles>(s, rows, columns, halves, 200 + i));
    thin.push_back(std::make_unique<random_tiles>(s, rows, columns, sparse, 400 + i));
    plain.push_back(random_halves(s, rows * columns, 0.03F, 300 + i));
  }
  double const bytes = static_cast<double>(w[0]->view.bytes()), dense_bytes = 2.0 * static_cast<double>(rows * columns);
  for (index_t tokens : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096}) {
    if (s.skips(tokens)) continue;
    auto const memory = random_halves(s, tokens * columns, 1, 7);
    auto const X = reading(memory, tokens, columns);
    cuda::device_buffer<float> out(tokens * rows);
    cuda::device_buffer<bfloat16> halves_out(tokens * rows);
    auto const Y = out.matrix(tokens, rows);
    auto const name = [&](char const* what) {
      return std::string(what) + " " + std::to_string(rows) + " x " + std::to_string(columns) + ", " + std::to_string(tokens) + " tokens";
    };
    double const operations = 2.0 * static_cast<double>(tokens) * static_cast<double>(rows * columns);
    double const blas = time_graph(s, copies, [&](int i) {
      cuda::gemm<bfloat16, float>(s.on(), 1.0F, X, transposed(reading(plain[static_cast<std::size_t>(i)], rows, columns)), 0.0F, Y);
    });
    s.add({name("cuBLAS bf16"), blas, {{"of bandwidth", s.bandwidth_share(dense_bytes, blas)}, {"of cuBLAS rate", s.rate_share(operations, blas)}}});
    auto const line = [&](char const* what, double time, double of_bytes) {
      s.add({name(what), time,
             {{"of bandwidth", s.bandwidth_share(of_bytes, time)}, {"of cuBLAS rate", s.rate_share(operations, time)}, {"x of cuBLAS", blas / time}}});
    };
    auto const at = [&](auto const& all, int i) { return all[static_cast<std::size_t>(i)]->view; };
    if (tokens == 1)
      line("naive 4-bit", time_graph(s, 2, [&](int i) {
             cuda::launch(s.stream, {dim3(static_cast<unsigned>(ceil_div(rows, 128)), static_cast<unsigned>(tokens)), 128, 0}, naive_product,
                          at(w, i), X, Y);
           }), bytes);
    double const chosen =
        time_graph(s, copies, [&](int i) { cuda::product<bfloat16, codes, float>(s.on(), at(w, i), X, Y); });
    line("product 4-bit", chosen, bytes);
    least_of_shapes::keep(least.bandwidth, tokens, s.bandwidth_share(bytes, chosen));
    least_of_shapes::keep(least.against_cublas, tokens, blas / chosen);
    double const sparse_chosen =
        time_graph(s, copies, [&](int i) { cuda::product<bfloat16, sparse, float>(s.on(), at(thin, i), X, Y); });
    line("product 2:4 4-bit", sparse_chosen, static_cast<double>(thin[0]->view.bytes()));
    if (tokens <= 32) {
      line("few tokens 4-bit", time_graph(s, copies, [&](int i) {
             cuda::few_tokens_product<bfloat16, codes, float>(s.on(), at(w, i), X, Y);
           }), bytes);
      line("few tokens bf16", time_graph(s, copies, [&](int i) {
             cuda::few_tokens_product<bfloat16, halves, float>(s.on(), at(dense, i), X, Y);
           }), dense_bytes);
    }
    if (tokens >= 64) {
      line("wgmma 4-bit",
           time_graph(s, copies,
                      [&](int i) { cuda::warpgroup_tokens_product<bfloat16, codes, float>(s.on(), at(w, i), X, Y); }),
           bytes);
      line("wgmma bf16",
           time_graph(
               s, copies,
               [&](int i) { cuda::warpgroup_tokens_product<bfloat16, halves, float>(s.on(), at(dense, i), X, Y); }),
           dense_bytes);
      line("expanded 4-bit, cuBLAS",
           time_graph(
               s, copies,
               [&](int i) { cuda::product<bfloat16, codes, float>(s.on(), at(w, i), X, Y, {.few = 0, .many = 0}); }),
           bytes);
    }
    if (tokens >= 8) {
      line("many tokens 4-bit", time_graph(s, copies, [&](int i) {
             cuda::many_tokens_product<bfloat16, codes, float>(s.on(), at(w, i), X, Y);
           }), bytes);
      line("many tokens bf16", time_graph(s, copies, [&](int i) {
             cuda::many_tokens_product<bfloat16, halves, float>(s.on(), at(dense, i), X, Y);
           }), dense_bytes);
    }
  }
}

}  // namespace

void bench_products(session& s) {
  least_of_shapes least;
  shape(s, s.size(14336), s.size(4096), least);
  shape(s, s.size(4096), s.size(14336), least);
  s.judge("W4A16, 1 token: share of bandwidth", least.bandwidth[1], 0.75, 0.90);
  s.judge("W4A16, 1 token: x of cuBLAS bf16", least.against_cublas[1], 3.0, 3.6);
  struct line {
    index_t tokens;
    double must, aim;
  };
  for (line const& of : {line{16, 2.8, 3.5}, line{32, 2.2, 3.0}, line{64, 1.5, 2.2}, line{128, 1.0, 1.5}})
    s.judge("W4A16, " + std::to_string(of.tokens) + " tokens: x of cuBLAS bf16", least.against_cublas[of.tokens],
            of.must, of.aim);
  double many = 1e30;
  for (auto const& [tokens, value] : least.against_cublas)
    if (tokens >= 256) many = std::min(many, value);
  s.judge("W4A16, 256 and more tokens: least x of cuBLAS bf16", many, 0.75, 0.95);
}

}  // namespace cuda_bench
