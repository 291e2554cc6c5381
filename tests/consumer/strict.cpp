// An engine that lends slimtrim its own threads and watches slimtrim's forward pass; compiled under every warning.
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/model/moe.hpp>
#include <slimtrim/similarity/cosine.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>

#include <cstdint>
#include <cstdio>
#include <future>
#include <utility>
#include <vector>

// The engine's threads, lent to slimtrim. Any executor gives the same bits.
class engine_threads final : public slimtrim::executor {
 public:
  void run(slimtrim::index_t count, slimtrim::piece_ref piece) override {
    std::future<void> odd = std::async(std::launch::async, [&] {
      for (slimtrim::index_t i = 1; i < count; i += 2) piece(i);
    });
    for (slimtrim::index_t i = 0; i < count; i += 2) piece(i);
    odd.get();  // and with it what a piece threw
  }
  [[nodiscard]] slimtrim::index_t concurrency() const override { return 2; }
};

// An observer: only the hooks that it has are called, the others cost nothing.
struct token_counter {
  std::vector<std::size_t> tokens;
  void expert_output(slimtrim::index_t /*layer*/, slimtrim::expert_batch const& batch,
                     slimtrim::matrix_view<float const> /*outputs*/) {
    tokens.at(static_cast<std::size_t>(batch.expert)) += batch.tokens.size();
  }
};

// A weight whose elements are 0, 1, .. 6, 0, ..
slimtrim::weight patterned(slimtrim::index_t rows, slimtrim::index_t columns) {
  slimtrim::tensor<float, 2> values(rows, columns);
  for (slimtrim::index_t i = 0; i < rows * columns; ++i) values(i / columns, i % columns) = static_cast<float>(i % 7);
  return slimtrim::own_weight(std::move(values));
}

int main() {
  constexpr slimtrim::index_t tokens = 300, hidden = 24, width = 16, experts = 3;
  slimtrim::moe_weights layer;
  layer.router = patterned(experts, hidden);
  layer.experts.resize(experts);
  for (auto& expert : layer.experts)
    expert.swiglu = {patterned(width, hidden), patterned(width, hidden), patterned(hidden, width)};
  slimtrim::tensor<float, 2> X(tokens, hidden), Y(tokens, hidden), Z(tokens, hidden);
  for (slimtrim::index_t i = 0; i < tokens * hidden; ++i) X(i / hidden, i % hidden) = static_cast<float>(i % 11) - 5.0F;

  slimtrim::forward_workspace work;
  token_counter counter{std::vector<std::size_t>(experts)};
  slimtrim::moe_layer(slimtrim::eigen_backend{}, layer, 0, slimtrim::as_const(X.view()), Y.view(), work, counter);
  engine_threads threads;
  slimtrim::moe_layer(slimtrim::eigen_backend{threads}, layer, 0, slimtrim::as_const(X.view()), Z.view(), work);

  std::size_t watched = 0;
  for (std::size_t const count : counter.tokens) watched += count;
  for (slimtrim::index_t i = 0; i < tokens * hidden; ++i)
    if (slimtrim::bits_as<std::uint32_t>(Y(i / hidden, i % hidden)) !=
        slimtrim::bits_as<std::uint32_t>(Z(i / hidden, i % hidden)))
      return std::puts("two threads gave other bits than one"), 1;
  std::printf("experts were given %zu rows of %td tokens\n", watched, tokens);
  return watched == 2 * static_cast<std::size_t>(tokens) ? 0 : 1;
}
