// One decoder layer on the device against the host's: every shape a layer can have, whole texts and single tokens, and
// when what a half adds reaches the stream.
//
// Tolerance: activations are rounded to 8 bits about six times, and weights that fill no tile, which do not stay codes,
// for each of four products: a relative error of 2^-8 at most, independently, sqrt(10) 2^-8 = 1.2e-2 of what the layer
// adds to its stream, squared 1.5e-4.
#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/decoder_layer.cuh>
#include <slimtrim/model/forward.hpp>
#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace cuda_decoder_layer_test {

using namespace slimtrim;
using cuda_tests::random_weights;

namespace {

constexpr double tolerance = 1.5e-4;

bool nothing(module_id) { return false; }
bool packed(module_id id) { return id.role != module_role::router && id.role != module_role::key; }
bool one_novice(module_id id) { return id.expert == 1; }

tensor<float, 2> random_stream(index_t rows, index_t hidden) {
  tensor<float, 2> X(rows, hidden);
  for (index_t i = 0; i < rows * hidden; ++i)
    X.view().data[i] = static_cast<float>(normal_at(6, 6, static_cast<std::uint64_t>(i)));
  return X;
}

// How far `found` - before is from `expected` - before, squared, relative to the latter.
double error_of_change(tensor<float, 2> const& found, tensor<float, 2> const& expected,
                       tensor<float, 2> const& before) {
  double error = 0, size = 1e-30;
  for (index_t i = 0; i < before.view().size(); ++i) {
    double const change = static_cast<double>(expected.view().data[i]) - static_cast<double>(before.view().data[i]);
    double const off = static_cast<double>(found.view().data[i]) - static_cast<double>(expected.view().data[i]);
    error += off * off;
    size += change * change;
  }
  return error / size;
}

// A layer on the device with a workspace, and a cache of some sequences.
struct layer_on_both_sides {
  cuda_tests::device_memory device;
  model_config config;
  cuda::layer_shape shape;
  decoder_layer source;
  cuda::device_layer<bfloat16> layer;
  index_t capacity = 0;
  cuda::layer_workspace<bfloat16> work{};
  cuda::attention_workspace attention{};
  cuda::cache_view<bfloat16> cache{};

  layer_on_both_sides(model_config const& of, index_t index, random_weights::choice is_packed,
                      random_weights::choice novice, index_t tokens, index_t sequences, index_t most)
      : config(of),
        shape(on(), config),
        source(load_layer(config, random_weights(config, is_packed, novice), index)),
        layer(on(), shape, source),
        capacity(most) {
    cuda::layer_extents extents;
    extents.include(layer);
    work = cuda::layer_workspace<bfloat16>(on(), shape, extents, tokens);
    attention = cuda::attention_workspace(on(), sequences, shape.heads, capacity);
    index_t const width = config.key_value_heads * config.head_dim;
    cache = {device.keep<bfloat16>(nullptr, sequences * capacity * width),
             device.keep<bfloat16>(nullptr, sequences * capacity * width), capacity, width};
  }
  cuda::context& on() { return device.backend().on(); }

  void put(tensor<float, 2> const& X) {
    tensor<float, 2> padded(X.extent(0), shape.padded_hidden);
    padded.fill(0.0F);
    for (index_t t = 0; t < X.extent(0); ++t)
      for (index_t j = 0; j < X.extent(1); ++j) padded(t, j) = X(t, j);
    cuda::copy_to_device(on().stream(), padded.view().data, padded.view().size(), work.stream.data());
    work.pending = false;
  }
  // Columns behind the model's own stay zero.
  tensor<float, 2> get(index_t n) {
    auto const all = device.download<float>(work.X(n));
    tensor<float, 2> X(n, config.hidden);
    for (index_t t = 0; t < n; ++t)
      for (index_t j = 0; j < shape.padded_hidden; ++j) {
        float const value = all[static_cast<std::size_t>(t * shape.padded_hidden + j)];
        if (j < config.hidden)
          X(t, j) = value;
        else
          REQUIRE(value == 0.0F);
      }
    return X;
  }
  void attend(index_t n, index_t rows, std::int32_t before) {
    std::vector<std::int32_t> const first(static_cast<std::size_t>(n / rows), before);
    cuda::forward_attention<bfloat16>(on(), shape, layer, n, {device.keep<std::int32_t>(first.data(), n / rows), rows},
                                      cache, attention, work);
  }
  void feed(index_t n) { cuda::forward_feed_forward<bfloat16>(on(), shape, layer, n, work); }
  // `rows` of each sequence behind `before` that the cache holds.
  tensor<float, 2> run(tensor<float, 2> const& X, index_t rows, std::int32_t before = 0) {
    index_t const n = X.extent(0);
    put(X);
    attend(n, rows, before);
    feed(n);
    cuda::settle(on(), work, n);
    device.backend().synchronise();
    return get(n);
  }
  tensor<float, 2> on_host(tensor<float, 2> const& X, index_t rows) const {
    tensor<float, 2> Y = X.clone();
    forward_workspace room;
    std::vector<token_sequence> const sequences(static_cast<std::size_t>(X.extent(0) / rows),
                                                token_sequence{rows, 0, nullptr});
    forward_layer(reference_backend{}, config, source, 0, Y.view(), std::span<token_sequence const>(sequences), room);
    return Y;
  }
};

bool same(tensor<float, 2> const& a, tensor<float, 2> const& b) {
  for (index_t i = 0; i < a.view().size(); ++i)
    if (a.view().data[i] != b.view().data[i]) return false;
  return a.view().size() == b.view().size();
}

// Every layer of a model on `sequences` texts of `rows` tokens, the first twice with the same memory.
void check(model_config const& config, random_weights::choice is_packed, random_weights::choice novice,
           index_t sequences, index_t rows) {
  for (index_t i = 0; i < config.layer_count(); ++i) {
    CAPTURE(i);
    index_t const n = sequences * rows;
    layer_on_both_sides both(config, i, is_packed, novice, n, sequences, rows);
    auto const X = random_stream(n, config.hidden);
    auto const found = both.run(X, rows);
    CHECK(error_of_change(found, both.on_host(X, rows), X) < tolerance);
    if (i == 0) CHECK(same(both.run(X, rows), found));
  }
}

}  // namespace

TEST_CASE("decoder_layer: whole, without attention, without feed-forward, with other experts, for few tokens") {
  check(cuda_tests::trimmed_mixtral(128), nothing, nullptr, 1, 17);
  check(cuda_tests::trimmed_mixtral(64), packed, one_novice, 2, 3);
}

TEST_CASE("decoder_layer: a hidden size that fills no tile, one token without a past") {
  check(cuda_tests::trimmed_mixtral(72), packed, nullptr, 1, 1);
  check(cuda_tests::trimmed_mixtral(72), nothing, one_novice, 3, 1);
}

TEST_CASE("decoder_layer: a dense part, and experts beside a shared one") {
  check(cuda_tests::small_deepseek(64), nothing, nullptr, 1, 5);
  check(cuda_tests::small_deepseek(64), packed, nullptr, 1, 5);
}

TEST_CASE("decoder_layer: more tokens than one launch normalises and routes") {
  check(cuda_tests::small_deepseek(64), packed, nullptr, 1, 33);
  check(cuda_tests::small_config(mixtral_family, 64, 1), nothing, one_novice, 2, 17);  // more than 16 an expert
}

TEST_CASE("decoder_layer: one token of several texts behind what their caches hold") {
  for (random_weights::choice is_packed : {nothing, packed}) {
    auto const config = cuda_tests::small_config(mixtral_family, 64, 1);
    index_t const sequences = 2, rows = 10;
    layer_on_both_sides both(config, 0, is_packed, nullptr, sequences * rows, sequences, rows);
    auto const X = random_stream(sequences * rows, 64);
    auto const expected = both.on_host(X, rows);
    auto const part = [&](tensor<float, 2> const& of, index_t first, index_t count) {  // of each sequence
      tensor<float, 2> some(sequences * count, 64);
      for (index_t s = 0; s < sequences; ++s)
        for (index_t t = 0; t < count; ++t)
          for (index_t j = 0; j < 64; ++j) some(s * count + t, j) = of(s * rows + first + t, j);
      return some;
    };
    // Nine at once, or four and five, then one.
    for (index_t cut : {9, 4}) {
      for (index_t first = 0; first < rows;) {
        index_t const count = first < cut ? cut : (first < 9 ? 9 - first : 1);
        auto const before = part(X, first, count);
        auto const found = both.run(before, count, static_cast<std::int32_t>(first));
        CAPTURE(first);
        CHECK(error_of_change(found, part(expected, first, count), before) < tolerance);
        first += count;
      }
    }
  }
}

TEST_CASE("decoder_layer: what a half adds is pending until the next half or settle adds it, once") {
  auto const config = cuda_tests::small_config(mixtral_family, 64, 1);
  layer_on_both_sides both(config, 0, nothing, nullptr, 3, 1, 3);
  auto const X = random_stream(3, 64);
  auto const expected = both.run(X, 3);
  both.put(X);
  both.attend(3, 3, 0);
  CHECK(both.work.pending);
  CHECK(same(both.get(3), X));
  cuda::settle(both.on(), both.work, 3);
  CHECK_FALSE(both.work.pending);
  auto const between = both.get(3);
  CHECK_FALSE(same(between, X));
  cuda::settle(both.on(), both.work, 3);
  CHECK(same(both.get(3), between));
  both.feed(3);
  CHECK(both.work.pending);
  CHECK(same(both.get(3), between));
  cuda::settle(both.on(), both.work, 3);
  CHECK(same(both.get(3), expected));  // as where the next half adds it
}

TEST_CASE("decoder_layer: a half that was dropped leaves the stream and what is pending alone") {
  auto const config = cuda_tests::trimmed_mixtral(64);
  auto const X = random_stream(2, 64);
  layer_on_both_sides no_attention(config, 1, nothing, nullptr, 2, 1, 2);
  no_attention.put(X);
  no_attention.attend(2, 2, 0);
  CHECK_FALSE(no_attention.work.pending);
  CHECK(same(no_attention.get(2), X));
  layer_on_both_sides no_experts(config, 2, nothing, nullptr, 2, 1, 2);
  no_experts.put(X);
  no_experts.attend(2, 2, 0);
  auto const added = no_experts.device.download<float>(no_experts.work.Y(2));
  no_experts.feed(2);
  CHECK(no_experts.work.pending);
  CHECK(no_experts.device.download<float>(no_experts.work.Y(2)) == added);
  CHECK(same(no_experts.get(2), X));
}

TEST_CASE("decoder_layer: normalising and routing are one launch up to 32 tokens and 16 pairs an expert") {
  auto const mixtral = cuda_tests::small_config(mixtral_family, 64, 1);  // 2 of 4
  layer_on_both_sides four(mixtral, 0, nothing, nullptr, 1, 1, 1);
  CHECK(cuda::detail::takes_front(four.layer, 32));
  CHECK_FALSE(cuda::detail::takes_front(four.layer, 33));
  layer_on_both_sides three(cuda_tests::trimmed_mixtral(64), 3, nothing, nullptr, 1, 1, 1);  // 2 of 3
  CHECK(cuda::detail::takes_front(three.layer, 24));
  CHECK_FALSE(cuda::detail::takes_front(three.layer, 25));
  layer_on_both_sides dense(cuda_tests::small_deepseek(64), 0, nothing, nullptr, 1, 1, 1);
  CHECK_FALSE(cuda::detail::takes_front(dense.layer, 1));
}

namespace {

// Writes down what it is told, and runs the experts as nobody watching would.
struct writing_watch {
  static constexpr bool active = true;
  layer_on_both_sides& of;
  std::string& told;
  void attention_input(device_matrix<bfloat16 const> N) const { told += "input " + std::to_string(N.extent(0)) + "; "; }
  void attention_context(device_matrix<bfloat16 const> Z) const {
    told += "context " + std::to_string(Z.extent(1)) + "; ";
  }
  void experts(cuda::device_layer<bfloat16> const& layer, device_matrix<bfloat16 const> X, device_matrix<float> Y,
               cuda::layer_workspace<bfloat16>& work) const {
    told += "experts " + std::to_string(X.extent(0)) + "; ";
    cuda::forward_experts<bfloat16>(of.on(), layer, X, Y, work);
  }
};

}  // namespace

TEST_CASE("decoder_layer: what watches is told once of each part, and changes nothing") {
  for (index_t n : {5, 33}) {
    auto const config = cuda_tests::small_deepseek(64);
    layer_on_both_sides both(config, 1, packed, nullptr, n, 1, n);
    auto const X = random_stream(n, 64);
    auto const expected = both.run(X, n);
    std::string told;
    writing_watch const watch{both, told};
    std::int32_t const none = 0;
    both.put(X);
    cuda::forward_attention<bfloat16>(both.on(), both.shape, both.layer, n,
                                      {both.device.keep<std::int32_t>(&none, 1), n}, both.cache, both.attention,
                                      both.work, watch);
    cuda::forward_feed_forward<bfloat16>(both.on(), both.shape, both.layer, n, both.work, watch);
    cuda::settle(both.on(), both.work, n);
    std::string const count = std::to_string(n);
    CHECK(told == "input " + count + "; context 64; experts " + count + "; ");
    // Normalising and routing are launches of their own: a normalised value may be the next number, 2^-7 of it.
    CHECK(error_of_change(both.get(n), expected, X) < 0x1p-14);
  }
}

TEST_CASE("decoder_layer: extents are the largest of each kind that a layer has") {
  cuda_tests::device_memory device;
  cuda::layer_extents most;
  CHECK(most.experts == 0);
  auto config = cuda_tests::small_deepseek(64);  // 160 dense; 3 of 6 of 32 beside 64, twice
  config.layers[2].experts = 8;
  config.layers[2].top_k = 4;
  config.layers[2].intermediate = 130;
  cuda::layer_shape const shape(device.backend().on(), config);
  random_weights const source(config, nothing, nullptr);
  for (index_t i : {2, 0, 1}) {
    cuda::device_layer<bfloat16> const layer(device.backend().on(), shape, load_layer(config, source, i));
    most.include(layer);
    CHECK(most.dense_width == (i == 2 ? 64 : 192));
  }
  CHECK(most.experts == 8);
  CHECK(most.top_k == 4);
  CHECK(most.width == 192);
}

TEST_CASE("decoder_layer: more tokens or experts than the workspace was made for are refused") {
  auto const config = cuda_tests::small_config(mixtral_family, 64, 1);
  layer_on_both_sides both(config, 0, nothing, nullptr, 3, 1, 4);
  both.put(random_stream(3, 64));
  CHECK_THROWS_AS(both.attend(4, 4, 0), error);
  CHECK_THROWS_AS(both.feed(4), error);
  both.work = cuda::layer_workspace<bfloat16>(both.on(), both.shape, {.experts = 3, .top_k = 2, .width = 64}, 3);
  both.put(random_stream(3, 64));
  CHECK_THROWS_AS(both.feed(3), error);
  both.attention = cuda::attention_workspace(both.on(), 1, both.shape.heads, 5);  // another capacity than the cache's
  CHECK_THROWS_AS(both.attend(1, 1, 0), error);
  auto const dense = cuda_tests::small_deepseek(64);
  layer_on_both_sides narrow(dense, 0, nothing, nullptr, 3, 1, 3);
  narrow.work = cuda::layer_workspace<bfloat16>(narrow.on(), narrow.shape, {.dense_width = 128}, 3);
  narrow.put(random_stream(3, 64));
  CHECK_THROWS_AS(narrow.feed(3), error);
}

}  // namespace cuda_decoder_layer_test
