// Texts that are continued in step, piece by piece, against one forward pass a token.
#include "cuda/model/plain_generation.hpp"

#include <doctest/doctest.h>

#include <set>
#include <vector>

namespace cuda_device_generation_test {

using namespace slimtrim;
using namespace cuda_tests;

TEST_CASE("device_generation: greedy with shared experts and a dense layer, prompts read in pieces of three") {
  model_on_device model(dense_and_shared());
  texts const prompts{some_tokens(7, 3), some_tokens(3, 4)};
  cuda::device_generation<bfloat16> state(model.on(), model.m, 2, 12, {}, 3);
  texts made(2);
  for (index_t s = 0; s < 2; ++s) state.prefill(s, prompts[static_cast<std::size_t>(s)]);
  for (int step = 0; step < 5; ++step) {
    state.draw();
    auto const next = state.tokens();
    for (std::size_t s = 0; s < 2; ++s) made[s].push_back(static_cast<std::uint32_t>(next[s]));
    state.step();
  }
  int decided = 0;
  for (std::size_t s = 0; s < 2; ++s) decided += check_greedy(model, prompts[s], made[s]);
  CHECK(2 * decided >= 2 * 5);
}

TEST_CASE("device_generation: a prompt in pieces of one token, and steps behind it, are the plain loop to the bit") {
  model_on_device model(two_layers(72));
  auto const tokens = some_tokens(9, 5);
  auto const expected = model.token_by_token(tokens, 9);
  cuda::device_generation<bfloat16> state(model.on(), model.m, 1, 9, {}, 1);
  state.prefill(0, std::span(tokens).first(5));
  for (index_t t = 4;; ++t) {
    CAPTURE(t);
    CHECK(same(row(as_const(state.logits().view()), 0), row(as_const(expected.view()), t)));
    if (t == 8) break;
    state.set_tokens({static_cast<std::int32_t>(tokens[static_cast<std::size_t>(t) + 1])});
    state.step();
  }
}

TEST_CASE("device_generation: pieces of any size leave the same logits") {
  model_on_device model(two_layers(64));
  auto const tokens = some_tokens(12, 6);
  auto const expected = model.token_by_token(tokens, 12);
  for (index_t piece : {5, 100}) {
    cuda::device_generation<bfloat16> state(model.on(), model.m, 1, 12, {}, piece);
    state.prefill(0, tokens);
    CAPTURE(piece);
    auto const first = state.logits();
    CHECK(near(row(as_const(first.view()), 0), row(as_const(expected.view()), 11)));
    state.prefill(0, tokens);  // over what is there
    CHECK(same(row(as_const(state.logits().view()), 0), row(as_const(first.view()), 0)));
  }
}

TEST_CASE("device_generation: texts of different lengths do not disturb each other, nor does one that is read anew") {
  model_on_device model(two_layers(64));
  texts const given{some_tokens(10, 7), some_tokens(7, 8), some_tokens(8, 9)};
  cuda::device_generation<bfloat16> state(model.on(), model.m, 3, 10, {}, 4);
  std::size_t at[3] = {5, 1, 3};
  for (std::size_t s : {2U, 0U, 1U}) state.prefill(static_cast<index_t>(s), std::span(given[s]).first(at[s]));
  std::vector<tensor<float, 2>> expected;
  for (auto const& text : given) expected.push_back(model.token_by_token(text, 10));
  for (int step = 0; step < 4; ++step) {
    if (step == 2) {
      at[1] = 2;
      state.prefill(1, std::span(given[1]).first(2));
    }
    std::vector<std::int32_t> next;
    for (std::size_t s = 0; s < 3; ++s) next.push_back(static_cast<std::int32_t>(given[s][at[s]++]));
    state.set_tokens(next);
    state.step();
    auto const logits = state.logits();
    for (std::size_t s = 0; s < 3; ++s) {
      CAPTURE(s);
      CHECK(near(row(as_const(logits.view()), static_cast<index_t>(s)),
                 row(as_const(expected[s].view()), static_cast<index_t>(at[s]) - 1)));
    }
  }
}

TEST_CASE("device_generation: every sequence becomes one token longer, and the step is counted once") {
  cuda_tests::own_stream const stream;
  cuda_tests::device_memory device(stream.get());
  std::vector<std::int32_t> lengths(300), expected;
  for (std::size_t i = 0; i < lengths.size(); ++i) lengths[i] = static_cast<std::int32_t>(7 * i);
  expected = lengths;
  for (std::size_t i = 0; i < 290; ++i) ++expected[i];
  std::int32_t const step = 5;
  auto* const held = device.keep<std::int32_t>(lengths.data(), 300);
  auto* const count = device.keep<std::int32_t>(&step, 1);
  cuda::launch(device.backend().on().stream(), {dim3(2), 256, 0}, cuda::detail::count_step, held, 290, count);
  CHECK(device.download<std::int32_t>(device_vector<std::int32_t>(held, 300)) == expected);
  CHECK(device.download<std::int32_t>(device_vector<std::int32_t>(count, 1))[0] == 6);
}

TEST_CASE("device_generation: experts that the last step met, and bytes of the cache") {
  model_on_device model(two_layers(64));
  cuda::device_generation<bfloat16> state(model.on(), model.m, 3, 5);
  // Keys and values of the layer with attention: two heads of 16, two bytes each.
  CHECK(state.bytes() == 2 * (3 * 5) * (2 * 16) * 2);
  CHECK(state.sequences() == 3);
  texts const prompts{{1, 2, 9}, {5, 6, 11}, {7, 7, 3}};
  std::set<std::int32_t> expected;
  std::vector<std::int32_t> last;
  for (std::size_t s = 0; s < 3; ++s) {
    state.prefill(static_cast<index_t>(s), std::span(prompts[s]).first(2));
    last.push_back(static_cast<std::int32_t>(prompts[s][2]));
    static_cast<void>(model.token_by_token(prompts[s], 3, &expected));
  }
  state.set_tokens(last);
  state.step();
  CHECK(state.experts_met() == static_cast<index_t>(expected.size()));
  auto dense = dense_and_shared();
  dense.layers.resize(1);
  model_on_device without(dense);
  cuda::device_generation<bfloat16> plain(without.on(), without.m, 1, 5);
  plain.prefill(0, prompts[0]);
  plain.step();
  CHECK(plain.experts_met() == 0);
}

TEST_CASE("device_generation: experts that were met are those of the last layer, whose slots may be fewer") {
  auto config = two_layers(64);
  config.layers[0].top_k = 4;
  config.layers[1].top_k = 1;
  model_on_device model(config);
  cuda::device_generation<bfloat16> state(model.on(), model.m, 1, 3);
  state.prefill(0, some_tokens(2, 1));
  state.step();
  CHECK(state.experts_met() == 1);
}

TEST_CASE("device_generation: a full cache or window refuses the step, and leaves all texts as they were") {
  for (bool windowed : {false, true}) {
    auto config = two_layers(64);
    config.sliding_window = windowed ? 3 : 0;
    model_on_device model(config);
    auto const tokens = some_tokens(3, 15);
    cuda::device_generation<bfloat16> state(model.on(), model.m, 2, windowed ? 8 : 3);
    state.prefill(0, std::span(tokens).first(1));
    state.prefill(1, tokens);
    for (int again = 0; again < 2; ++again) CHECK_THROWS_AS(state.step(), error);
    auto const expected = model.token_by_token(tokens, 3);
    state.prefill(1, std::span(tokens).first(1));
    for (index_t t = 1; t < 3; ++t) {
      auto const next = static_cast<std::int32_t>(tokens[static_cast<std::size_t>(t)]);
      state.set_tokens({next, next});
      state.step();
      for (index_t s = 0; s < 2; ++s)
        CHECK(near(row(as_const(state.logits().view()), s), row(as_const(expected.view()), t)));
    }
    CHECK_THROWS_AS(state.step(), error);
  }
}

TEST_CASE("device_generation: a text that was ended is free of the window until its next prompt") {
  auto config = two_layers(64);
  config.sliding_window = 3;
  model_on_device model(config);
  cuda::device_generation<bfloat16> state(model.on(), model.m, 1, 5);
  auto const prompt = some_tokens(3, 1);
  state.prefill(0, prompt);
  state.end(0);
  state.step();
  state.step();
  CHECK_THROWS_AS(state.step(), error);  // the cache is full
  state.prefill(0, prompt);
  CHECK_THROWS_AS(state.step(), error);
  CHECK_THROWS_AS(state.end(1), error);
}

TEST_CASE("device_generation: sequences, tokens and pieces that there cannot be are refused") {
  model_on_device model(two_layers(64));
  cuda::device_generation<bfloat16> state(model.on(), model.m, 2, 4);
  CHECK_THROWS_WITH_AS(state.prefill(2, std::vector<std::uint32_t>{1}), "generate: sequence: expected 0 .. 1, found 2",
                       error);
  CHECK_THROWS_AS(state.prefill(-1, std::vector<std::uint32_t>{1}), error);
  CHECK_THROWS_WITH_AS(state.set_tokens({1}), "generate: tokens: expected 2, found 1", error);
  CHECK_THROWS_WITH_AS(state.set_tokens({1, 24}), "generate: expected an id below 24, found 24", error);
  CHECK_THROWS_AS(state.set_tokens({-1, 1}), error);
  CHECK_THROWS_WITH_AS((cuda::device_generation<bfloat16>(model.on(), model.m, 2, 4, {}, 0)),
                       "generate: most_prefill: expected at least 1", error);
}

}  // namespace cuda_device_generation_test
