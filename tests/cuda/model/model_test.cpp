// The forward pass on the device against the host's, in whole models: trimmed layers, packed and dense weights, a
// cache, generation.
//
// Tolerance: activations are rounded to 8 bits before each product, a relative error of 2^-8 at most, about six times a
// layer and independently: 3 layers give at most sqrt(18) 2^-8 = 1.7e-2 of the logits' size, squared 2.7e-4. A wrong
// head, position or expert gives a thousand times as much.
#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/generate.cuh>
#include <slimtrim/model/forward.hpp>
#include <doctest/doctest.h>

#include <vector>

namespace cuda_model_test {

using namespace slimtrim;
using namespace cuda_tests;

namespace {

constexpr double tolerance = 2.7e-4;

bool nothing(module_id) { return false; }
bool some_packed(module_id id) {
  // Layer 0 wholly, in layer 1 the experts only, of the attention in layer 2 the queries only, in layer 3 some experts.
  if (id.role == module_role::embedding || id.role == module_role::head || id.role == module_role::router) return false;
  if (id.layer == 1) return id.role == module_role::gate || id.role == module_role::up || id.role == module_role::down;
  if (id.layer == 2) return id.role == module_role::query;
  return id.layer == 0 || id.expert == 1;
}
bool one_novice(module_id id) { return id.layer == 0 && id.expert == 2; }

std::vector<std::uint32_t> some_tokens(index_t count) {
  std::vector<std::uint32_t> tokens;
  for (index_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::uint32_t>(random_bits_at(8, 8, static_cast<std::uint64_t>(i)) % 70));
  return tokens;
}

double normalised_error(matrix_view<float const> found, matrix_view<float const> expected) {
  double error = 0, size = 0;
  for (index_t i = 0; i < expected.extent(0); ++i)
    for (index_t j = 0; j < expected.extent(1); ++j) {
      double const difference = static_cast<double>(found(i, j)) - static_cast<double>(expected(i, j));
      error += difference * difference;
      size += static_cast<double>(expected(i, j)) * static_cast<double>(expected(i, j));
    }
  return error / size;
}

tensor<float, 2> host_logits(model_config const& config, weight_source const& source,
                             std::vector<std::uint32_t> const& tokens) {
  forward_workspace work;
  reference_backend const backend;
  auto const n = static_cast<index_t>(tokens.size());
  model_ends const ends = load_ends(config, source);
  tensor<float, 2> X(n, config.hidden), logits(n, config.vocabulary);
  embed(ends, tokens, X.view());
  for (index_t i = 0; i < config.layer_count(); ++i)
    forward_layer(backend, config, load_layer(config, source, i), i, X.view(), work);
  final_logits(backend, config, ends, X.view(), logits.view(), work);
  return logits;
}

// All tokens at once, then the same text token by token.
void check(model_config const& config, random_weights::choice packed, random_weights::choice novice, index_t count) {
  random_weights const source(config, packed, novice);
  auto const tokens = some_tokens(count);
  auto const expected = host_logits(config, source, tokens);
  own_stream const stream;
  device_memory device(stream.get());
  auto& on = device.backend().on();
  cuda::device_model<bfloat16> const m(on, config, source);
  {
    cuda::layer_workspace<bfloat16> work(on, m.shape, m.extents, count);
    cuda::device_cache<bfloat16> const cache(m, 1, count);
    cuda::attention_workspace const attention(on, 1, m.shape.heads, count);
    std::int32_t const zero = 0;
    std::vector<std::int32_t> const ids(tokens.begin(), tokens.end());
    auto const logits = device.matrix<float>(count, m.logit_columns());
    cuda::forward<bfloat16>(on, m, device.keep<std::int32_t>(ids.data(), count), count,
                            {device.keep<std::int32_t>(&zero, 1), count}, cache, 0, attention, work);
    cuda::final_logits<bfloat16>(on, m.shape, m.ends, count, 0, count, work, logits);
    device.backend().synchronise();
    auto const found = device.download<float>(logits);
    tensor<float, 2> values(count, config.vocabulary);
    for (index_t t = 0; t < count; ++t)
      for (index_t v = 0; v < config.vocabulary; ++v)
        values(t, v) = found[static_cast<std::size_t>(t * m.logit_columns() + v)];
    CHECK(normalised_error(values.view(), expected.view()) < tolerance);
  }
  cuda::device_generation<bfloat16> text(on, m, 2, count, {}, 5);  // prompts in pieces of five
  index_t const prompt = count / 2;
  for (index_t s = 0; s < 2; ++s)
    text.prefill(s, std::span<std::uint32_t const>(tokens).first(static_cast<std::size_t>(prompt - s)));
  for (index_t t = prompt; t < count; ++t) {
    text.set_tokens({static_cast<std::int32_t>(tokens[static_cast<std::size_t>(t)]),
                     static_cast<std::int32_t>(tokens[static_cast<std::size_t>(t) - 1])});
    text.step();
    auto const found = text.logits();
    CAPTURE(t);
    CHECK(normalised_error(rows(as_const(found.view()), 0, 1), rows(as_const(expected.view()), t, 1)) < tolerance);
    CHECK(normalised_error(rows(as_const(found.view()), 1, 1), rows(as_const(expected.view()), t - 1, 1)) < tolerance);
  }
  device.backend().synchronise();
}

}  // namespace

TEST_CASE("model: Mixtral with dropped parts, dense and packed, hidden size of whole tiles or not") {
  check(trimmed_mixtral(128), nothing, nullptr, 9);
  check(trimmed_mixtral(128), some_packed, one_novice, 9);
  check(trimmed_mixtral(72), some_packed, nullptr, 9);
}

TEST_CASE("model: DeepSeek with a dense layer and shared experts, tokens for both kinds of kernel") {
  check(small_deepseek(64), nothing, nullptr, 6);
  check(small_deepseek(64), some_packed, nullptr, 40);
}

TEST_CASE("model: what is generated is what the logits say, and the same as alone") {
  model_config const config = trimmed_mixtral(64);
  random_weights const source(config, some_packed, nullptr);
  own_stream const stream;
  device_memory device(stream.get());
  auto& on = device.backend().on();
  cuda::device_model<bfloat16> const m(on, config, source);
  std::vector<std::vector<std::uint32_t>> const prompts{some_tokens(6), {3}};
  generate_options options;
  options.length = 5;
  auto const both = cuda::generate<bfloat16>(on, m, std::span<std::vector<std::uint32_t> const>(prompts), options);
  REQUIRE(both.size() == 2);
  for (std::size_t s = 0; s < 2; ++s) {
    auto const alone =
        cuda::generate<bfloat16>(on, m, std::span<std::vector<std::uint32_t> const>(prompts).subspan(s, 1), options);
    CHECK(both[s] == alone.front());
    // Greedy: each token has the largest logit behind what comes before it, within the tolerance of logits of size one.
    auto text = prompts[s];
    text.insert(text.end(), both[s].begin(), both[s].end());
    auto const logits = host_logits(config, source, text);
    for (std::size_t i = prompts[s].size(); i < text.size(); ++i) {
      auto const at = static_cast<index_t>(i) - 1;
      float largest = logits(at, 0);
      for (index_t v = 1; v < config.vocabulary; ++v) largest = std::max(largest, logits(at, v));
      CHECK(logits(at, static_cast<index_t>(text[i])) > largest - 0.1F);
    }
  }
  options.stop_tokens = {both[0][1]};
  auto const stopped =
      cuda::generate<bfloat16>(on, m, std::span<std::vector<std::uint32_t> const>(prompts).first(1), options);
  CHECK(stopped[0].back() == both[0][1]);
  CHECK(stopped[0].size() <= 2);
  options.stop_tokens.clear();
  options.sampling = {.temperature = 0.8, .top_k = 5, .seed = 3};
  auto const drawn = cuda::generate<bfloat16>(on, m, std::span<std::vector<std::uint32_t> const>(prompts), options);
  CHECK(drawn[1].size() == 5);
}

TEST_CASE("model: kernels that may begin early make the same logits, to the bit, and so does the null stream") {
  model_config const config = trimmed_mixtral(64);
  random_weights const source(config, some_packed, nullptr);
  own_stream const stream;
  device_memory own(stream.get()), null;
  // 20 sequences: products for many tokens, whose scratch comes and goes between the kernels.
  auto const logits_of = [&](device_memory const& device, bool early, index_t sequences) {
    auto& on = device.backend().on();
    cuda::device_model<bfloat16> const m(on, config, source);
    cuda::device_generation<bfloat16> text(on, m, sequences, 24);
    text.overlap_launches(early);
    for (index_t s = 0; s < sequences; ++s) text.prefill(s, some_tokens(5 + s % 7));
    std::vector<float> seen;
    for (int step = 0; step < (sequences < 10 ? 12 : 3); ++step) {
      text.draw();
      text.step();
      auto const logits = text.logits();
      seen.insert(seen.end(), logits.view().data, logits.view().data + logits.view().size());
    }
    CHECK_FALSE(on.overlaps());  // and nothing else does afterwards
    return seen;
  };
  for (index_t const sequences : {index_t{2}, index_t{20}}) {
    CAPTURE(sequences);
    auto const expected = logits_of(own, false, sequences);
    CHECK(logits_of(own, true, sequences) == expected);
    CHECK(logits_of(null, false, sequences) == expected);
  }
}

TEST_CASE("model: prompts and caches that do not fit are refused") {
  model_config const config = small_config(mixtral_family, 64, 1);
  random_weights const source(config, nothing, nullptr);
  own_stream const stream;
  device_memory device(stream.get());
  auto& on = device.backend().on();
  cuda::device_model<bfloat16> const m(on, config, source);
  cuda::device_generation<bfloat16> text(on, m, 1, 3);
  CHECK_THROWS_AS(text.prefill(0, {}), error);
  CHECK_THROWS_AS(text.prefill(0, some_tokens(4)), error);
  CHECK_THROWS_AS(text.prefill(0, std::vector<std::uint32_t>{70}), error);
  text.prefill(0, some_tokens(3));
  CHECK_THROWS_AS(text.step(), error);
  model_config windowed = config;
  windowed.sliding_window = 2;
  cuda::device_model<bfloat16> const short_sighted(on, windowed, source);
  cuda::device_generation<bfloat16> near(on, short_sighted, 1, 8);
  CHECK_THROWS_AS(near.prefill(0, some_tokens(3)), error);
  near.prefill(0, some_tokens(2));
  CHECK_THROWS_AS(near.step(), error);
  model_config wide = config;
  wide.head_dim = 256;
  CHECK_THROWS_AS(cuda::layer_shape(on, wide), error);
}

}  // namespace cuda_model_test
