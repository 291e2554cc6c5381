// Streams of windows: embedded, taken through layers in batches, independent of one another.
#include <slimtrim/pipeline/window_streams.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/model/accelerator.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace pipeline_window_streams_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

double largest_difference(matrix_view<float const> a, matrix_view<float const> b) {
  double most = 0;
  for (index_t i = 0; i < a.extent(0); ++i)
    for (index_t j = 0; j < a.extent(1); ++j) most = std::max(most, std::fabs(static_cast<double>(a(i, j)) - static_cast<double>(b(i, j))));
  return most;
}

// Notes which memory it is lent, and until when.
class lending_accelerator final : public accelerator {
 public:
  std::vector<std::span<std::byte>> lent;
  int held = 0;

  std::shared_ptr<void> fix_pages(std::span<std::byte> memory) override {
    lent.push_back(memory);
    ++held;
    return std::shared_ptr<void>(memory.data(), [this, memory](void*) {
      --held;
      memory[0] = memory[0];  // still there
    });
  }
  void layer(model_config const&, decoder_layer const&, matrix_view<float>, index_t, layer_hooks const&) override {}
  void attention(model_config const&, decoder_layer const&, matrix_view<float>, index_t, layer_hooks const&) override {}
  void feed_forward(model_config const&, decoder_layer const&, matrix_view<float>, layer_hooks const&) override {}
  void logits(model_config const&, model_ends const&, matrix_view<float const>, matrix_view<float>) override {}
  bool gemm(float, matrix_view<float const>, matrix_view<float const>, float, matrix_view<float>) override { return false; }
  bool gram_update(float, matrix_view<float const>, matrix_view<float>) override { return false; }
};

}  // namespace

TEST_CASE("an accelerator is lent a stream as long as that lives, and its copy apart") {
  lending_accelerator device;
  accelerated<eigen_backend> const backend(eigen_backend{}, &device);
  model_ends const ends = load_ends(bundled().config, *bundled().weights);
  {
    window_streams streams(ends, train_windows(4, 8), 0, 3);
    streams.lend_to(backend);
    REQUIRE(device.lent.size() == 1);
    CHECK(device.lent[0].data() == reinterpret_cast<std::byte*>(streams.all().data));
    CHECK(device.lent[0].size() == 3 * 8 * 128 * sizeof(float));
    window_streams copy = streams.clone();
    CHECK(device.held == 1);
    copy.lend_to(backend);
    CHECK(device.lent[1].data() == reinterpret_cast<std::byte*>(copy.all().data));
    window_streams const moved = std::move(copy);
    CHECK(device.held == 2);
  }
  CHECK(device.held == 0);
  window_streams streams(ends, train_windows(4, 8), 0, 3);
  streams.lend_to(accelerated<eigen_backend>(eigen_backend{}));
  streams.lend_to(reference_backend{});
  CHECK(device.lent.size() == 2);
}

TEST_CASE("a pass over chunks of windows counts tokens from none to all") {
  token_windows const windows{8, std::vector<std::uint32_t>(40), "made"};
  CHECK(tokens_done(windows, 0, 2, 0, 4) == 0);
  CHECK(tokens_done(windows, 0, 2, 1, 4) == 4);
  CHECK(tokens_done(windows, 2, 2, 0, 4) == 16);
  CHECK(tokens_done(windows, 4, 1, 3, 4) == 38);
  CHECK(tokens_done(windows, 4, 1, 4, 4) == 40);
}

TEST_CASE("windows start as rows of the embedding") {
  model_ends const ends = load_ends(bundled().config, *bundled().weights);
  token_windows const windows = train_windows(4, 8);
  window_streams streams(ends, windows, 1, 2);
  CHECK(streams.count() == 2);
  CHECK(streams.sequence() == 8);
  tensor<float, 2> const embedding = expand(ends.embedding.view);
  for (index_t w = 0; w < 2; ++w)
    for (index_t t = 0; t < 8; ++t)
      for (index_t j = 0; j < 128; ++j)
        CHECK_UNARY(streams.window(w)(t, j) == embedding(static_cast<index_t>(windows[1 + w][static_cast<std::size_t>(t)]), j));
  window_streams copy = streams.clone();
  copy.window(0)(0, 0) += 1;
  CHECK(copy.all()(0, 0) != streams.all()(0, 0));
}

TEST_CASE("batches cover every window once") {
  model_ends const ends = load_ends(bundled().config, *bundled().weights);
  window_streams streams(ends, train_windows(7, 8), 0, 7);
  reference_backend const backend;
  for (index_t const batch : {index_t{0}, index_t{1}, index_t{3}, index_t{7}, index_t{100}}) {
    std::vector<int> seen(7, 0);
    streams.for_each_batch(backend, batch, [&](index_t first, index_t n, matrix_view<float> X) {
      CHECK(X.extent(0) == n * 8);
      CHECK(X.data == streams.window(first).data);
      for (index_t w = first; w < first + n; ++w) ++seen[static_cast<std::size_t>(w)];
    });
    CHECK(seen == std::vector<int>(7, 1));
  }
}

TEST_CASE("a window's stream depends neither on threads nor on its neighbours") {
  model_ends const ends = load_ends(bundled().config, *bundled().weights);
  token_windows const windows = train_windows(5, 300);  // batches of three windows, the last of two
  window_streams one(ends, windows, 0, 5), two(ends, windows, 0, 5), alone(ends, windows, 4, 1);
  run_streams(bundled(), one, 1);
  run_streams(bundled(), two, 2);
  run_streams(bundled(), alone, 1);
  CHECK(largest_difference(one.all(), two.all()) == 0);
  // Products of other heights may sum in another order; stream entries are of size 10.
  CHECK(largest_difference(one.window(4), alone.window(0)) < 2e-3);
}

TEST_CASE("how many windows fit") {
  CHECK(windows_within(1 << 20, 256, 128) == 8);
  CHECK(windows_within((1 << 20) - 1, 256, 128) == 7);
  CHECK(windows_within(0, 256, 128) == 1);
  CHECK(windows_within(100, 0, 128) == 100);
}

TEST_CASE("workspaces go back to their pool") {
  workspace_pool pool;
  forward_workspace* first = nullptr;
  {
    auto const lease = pool.take();
    first = &*lease;
    auto const other = pool.take();
    CHECK(&*other != first);
  }
  auto const a = pool.take();
  auto const b = pool.take();
  CHECK((&*a == first || &*b == first));
}

}  // namespace pipeline_window_streams_test
