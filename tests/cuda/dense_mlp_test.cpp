// A SwiGLU that every token takes against plain loops over the matrices as they were before they became tiles.
#include "cuda/weights.hpp"

#include <slimtrim/cuda/dense_mlp.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

namespace cuda_dense_mlp_test {

using namespace slimtrim;
using cuda_tests::code_matrix;

namespace {

// Rows of doubles.
struct plain_matrix {
  index_t columns = 0;
  std::vector<double> values{};
  template <class Matrix>
  plain_matrix(Matrix const& from, index_t rows, index_t width) : columns(width) {
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < width; ++c) values.push_back(static_cast<double>(static_cast<float>(from(r, c))));
  }
  [[nodiscard]] double const* row(index_t r) const { return values.data() + r * columns; }
};

struct sum_and_size {
  double sum = 0, size = 0;
};
sum_and_size dot(double const* a, double const* b, index_t n) {
  sum_and_size s;
  for (index_t i = 0; i < n; ++i) {
    s.sum += a[i] * b[i];
    s.size += std::abs(a[i] * b[i]);
  }
  return s;
}

struct mlp {
  cuda_tests::device_memory device;
  index_t hidden, width;
  cuda::host_tiles fused, out;
  plain_matrix gate, up, down;
  cuda::moe_layer_view<bfloat16> view{};

  mlp(code_matrix const& g, code_matrix const& u, code_matrix const& d)
      : mlp(cuda::fused_rows<cuda::code_rows<space::host>>{{g.view}, {u.view}}, g.view, u.view, d.view,
            cuda::plan_tiles(g.view, cuda::tile_scale::bfloat16, true), g.view.zeros.data != nullptr,
            cuda::pack_tiles(d.view), g.view.columns, g.view.rows) {}
  mlp(tensor<bfloat16, 2> const& g, tensor<bfloat16, 2> const& u, tensor<bfloat16, 2> const& d)
      : mlp(cuda::fused_rows<cuda::half_rows<bfloat16, space::host>>{{g.view()}, {u.view()}}, g, u, d,
            cuda::plan_tiles<bfloat16>(g.view(), true), false, cuda::pack_tiles<bfloat16>(d.view()), g.extent(1),
            g.extent(0)) {}

  template <cuda::tile_kind Kind>
  void run(device_matrix<bfloat16 const> X, device_matrix<float> Y, bool accumulate = false) {
    auto& on = device.backend().on();
    auto const work = cuda::dense_workspace<bfloat16>(on, X.extent(0), width, hidden);
    cuda::dense_mlp<bfloat16, Kind, float>(on, view, X, Y, work, accumulate);
    device.backend().synchronise();
  }

  template <cuda::tile_kind Kind>
  void check(index_t tokens, bool accumulate = false) {
    CAPTURE(tokens);
    tensor<bfloat16, 2> X(tokens, hidden);
    tensor<float, 2> start(tokens, hidden);
    for (index_t i = 0; i < tokens * hidden; ++i) {
      X.view().data[i] = bfloat16(static_cast<float>(0.5 * normal_at(5, 5, static_cast<std::uint64_t>(i))));
      start.view().data[i] = accumulate ? static_cast<float>(i % 7) : std::nanf("");
    }
    auto const Y = device.upload_matrix<float>(start);
    run<Kind>(as_const(device.upload_matrix<bfloat16>(X)), Y, accumulate);
    auto const found = device.download<float>(Y);

    // Sums of n products in float are off by (n + 4) 2^-24 of the sum of magnitudes at most, scales included. silu has
    // a slope of at most 1.1, exp and division are off by 2^-21; the activations between are rounded to 8 bits, 2^-8.
    plain_matrix const x(X, tokens, hidden);
    double const by_hidden = static_cast<double>(hidden + 4) * 0x1p-24,
                 by_width = static_cast<double>(width + 4) * 0x1p-24;
    std::vector<double> inner(static_cast<std::size_t>(width)), doubt(inner);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t f = 0; f < width; ++f) {
        auto const at = static_cast<std::size_t>(f);
        auto const a = dot(x.row(t), gate.row(f), hidden), b = dot(x.row(t), up.row(f), hidden);
        double const silu = a.sum * (0.5 + 0.5 * std::tanh(0.5 * a.sum));
        inner[at] = silu * b.sum;
        doubt[at] = by_hidden * (1.1 * a.size * std::abs(b.sum) + std::abs(silu) * b.size) * 1.01 +
                    std::abs(inner[at]) * (0x1p-8 + 0x1p-21) * 1.01;
      }
      for (index_t j = 0; j < hidden; ++j) {
        auto const y = dot(inner.data(), down.row(j), width);
        double bound = by_width * y.size * 1.01 + 1e-30;
        for (index_t f = 0; f < width; ++f) bound += doubt[static_cast<std::size_t>(f)] * std::abs(down.row(j)[f]);
        double const before = accumulate ? static_cast<double>(start(t, j)) : 0.0;
        bound += 0x1p-23 * (std::abs(before) + std::abs(y.sum));  // the addition
        REQUIRE(std::abs(static_cast<double>(found[static_cast<std::size_t>(t * hidden + j)]) - before - y.sum) <=
                bound);
      }
    }
  }

 private:
  template <class Both, class Gate, class Up, class Down>
  mlp(Both const& both, Gate const& g, Up const& u, Down const& d, cuda::tile_weight_view const& plan, bool zeros,
      cuda::host_tiles packed_down, index_t h, index_t f)
      : hidden(h),
        width(f),
        fused(cuda::pack_tiles(both, plan, zeros)),
        out(std::move(packed_down)),
        gate(g, f, h),
        up(u, f, h),
        down(d, h, f) {
    auto const in = cuda_tests::upload_tiles(device, fused), back = cuda_tests::upload_tiles(device, out);
    view.rule.top_k = 1;
    view.experts = 1;
    view.hidden = h;
    view.width = f;
    view.gate_up = device.keep<cuda::tile_weight_view>(&in, 1);
    view.down = device.keep<cuda::tile_weight_view>(&back, 1);
  }
};

mlp of_codes() {
  return {code_matrix(192, 128, 64, true, 1), code_matrix(192, 128, 64, true, 2), code_matrix(128, 192, 0, false, 3)};
}
mlp of_halves(index_t hidden, index_t width) {
  return {cuda_tests::random_halves(width, hidden, 1), cuda_tests::random_halves(width, hidden, 2),
          cuda_tests::random_halves(hidden, width, 3)};
}

}  // namespace

TEST_CASE("dense_mlp: 4-bit weights, each number of tokens that takes another kernel and the ones beside it") {
  mlp one = of_codes();
  for (index_t tokens : {0, 1, 8, 9, 16, 17, 32, 33, 70}) one.check<cuda::tile_kind::codes4>(tokens);
}

TEST_CASE("dense_mlp: bfloat16 weights, one tile wide and wider than tall") {
  mlp narrow = of_halves(64, 64), wide = of_halves(64, 320);
  for (index_t tokens : {1, 17, 40}) {
    narrow.check<cuda::tile_kind::bfloat16>(tokens);
    wide.check<cuda::tile_kind::bfloat16>(tokens);
  }
}

TEST_CASE("dense_mlp: added to what is there") {
  mlp one = of_codes();
  for (index_t tokens : {1, 9, 17, 33}) one.check<cuda::tile_kind::codes4>(tokens, true);
}

TEST_CASE("dense_mlp: more than 256 tokens all take the expert") {
  // A kernel of 256 threads a block says who takes it; tokens behind the first block must be among them.
  mlp one = of_halves(64, 64);
  index_t const tokens = 300;
  auto const X = as_const(one.device.upload_matrix<bfloat16>(cuda_tests::random_halves(tokens, 64, 8)));
  auto const Y = one.device.matrix<float>(tokens, 64), few = one.device.matrix<float>(40, 64);
  one.run<cuda::tile_kind::bfloat16>(X, Y);
  one.run<cuda::tile_kind::bfloat16>(rows(X, 260, 40), few);
  auto const all = one.device.download<float>(Y), last = one.device.download<float>(few);
  // A token's result does not depend on the tokens beside it: the same bits.
  CHECK(std::memcmp(all.data() + 260 * 64, last.data(), last.size() * sizeof(float)) == 0);
}

TEST_CASE("dense_mlp: rows that 16-byte loads cannot have are refused for any number of tokens") {
  mlp one = of_halves(64, 64);
  for (index_t tokens : {2, 9, 17, 33}) {
    auto const X = one.device.upload_matrix<bfloat16>(cuda_tests::random_halves(tokens, 64, 8), backend_tests::layout::padded_rows);
    auto const Y = one.device.matrix<float>(tokens, 64);
    CHECK_THROWS_AS(one.run<cuda::tile_kind::bfloat16>(as_const(X), Y), error);
  }
}

TEST_CASE("dense_mlp: what does not fit together is refused") {
  mlp one = of_halves(64, 64);
  auto& on = one.device.backend().on();
  auto const work = cuda::dense_workspace<bfloat16>(on, 4, 64, 64);
  auto const run = [&](cuda::moe_layer_view<bfloat16> const& layer, index_t tokens, index_t columns, index_t rows,
                       index_t results, cuda::moe_workspace<bfloat16> const& room) {
    cuda::dense_mlp<bfloat16, cuda::tile_kind::bfloat16, float>(on, layer,
                                                                as_const(one.device.matrix<bfloat16>(tokens, columns)),
                                                                one.device.matrix<float>(rows, results), room);
  };
  auto two = one.view, more = one.view, odd = one.view;
  two.experts = 2;
  more.experts = 2;
  more.rule.top_k = 2;
  odd.width = 96;
  CHECK_THROWS_WITH_AS(run(two, 4, 64, 4, 64, work), "cuda::dense_mlp: layer: expected one expert", error);
  CHECK_THROWS_WITH_AS(run(more, 4, 64, 4, 64, work), "cuda::dense_mlp: layer: expected one expert", error);
  CHECK_THROWS_WITH_AS(run(odd, 4, 64, 4, 64, work), "cuda::moe_layer: hidden, width: expected multiples of 64", error);
  CHECK_THROWS_WITH_AS(run(one.view, 4, 128, 4, 64, work),
                       "cuda::moe_layer: columns of the activations: expected 64, found 128", error);
  CHECK_THROWS_WITH_AS(run(one.view, 5, 64, 5, 64, work),
                       "cuda::moe_layer: workspace: made for fewer tokens, experts or a smaller layer", error);
  CHECK_THROWS_WITH_AS(run(one.view, 4, 64, 4, 64, cuda::moe_workspace<bfloat16>(on, 4, 1, 2, 64, 64)),
                       "cuda::dense_mlp: workspace: expected one of dense_workspace", error);
  CHECK_THROWS_WITH_AS(run(one.view, 4, 64, 3, 64, work), "cuda::dense_mlp: rows of the result: expected 4, found 3",
                       error);
  CHECK_THROWS_WITH_AS(run(one.view, 4, 64, 4, 32, work),
                       "cuda::dense_mlp: columns of the result: expected 64, found 32", error);
}

}  // namespace cuda_dense_mlp_test
