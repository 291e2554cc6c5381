// Products of a 4096 x 4096 weight with 1 to 256 tokens: 4-bit codes in groups of 128 (8.7 MB), and 2:4 sparse codes (6.5 MB).
#include "../support.cuh"

#include <slimtrim/cuda/few_tokens.cuh>
#include <slimtrim/cuda/many_tokens.cuh>
#include <slimtrim/cuda/warpgroup_tokens.cuh>

int main() {
  using namespace cuda_bench;
  session s(nullptr);
  index_t const rows = 4096, columns = 4096;
  auto const run = [&]<cuda::tile_kind Kind>(std::initializer_list<index_t> few, std::initializer_list<index_t> many, std::initializer_list<index_t> warpgroup) {
    random_tiles const w(s, rows, columns, Kind, 1);
    auto const each = [&](std::initializer_list<index_t> counts, auto const& product) {
      for (index_t const tokens : counts) {
        auto const x = random_halves(s, tokens * columns, 1, 2);
        cuda::device_buffer<float> y(tokens * rows);
        product(reading(x, tokens, columns), y.matrix(tokens, rows));
      }
    };
    each(few, [&](auto X, auto Y) { cuda::few_tokens_product<bfloat16, Kind, float>(s.on(), w.view, X, Y); });
    each(many, [&](auto X, auto Y) { cuda::many_tokens_product<bfloat16, Kind, float>(s.on(), w.view, X, Y); });
    each(warpgroup, [&](auto X, auto Y) { cuda::warpgroup_tokens_product<bfloat16, cuda::tile_kind::codes4, float>(s.on(), w.view, X, Y); });
  };
  run.operator()<cuda::tile_kind::codes4>({1, 16}, {32, 64}, {256});
  run.operator()<cuda::tile_kind::sparse4>({1}, {64}, {});
  s.backend.synchronise();
}
