// generate() against a plain loop: one forward pass a token and the largest logit.
#include "cuda/model/plain_generation.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace cuda_generate_test {

using namespace slimtrim;
using namespace cuda_tests;

TEST_CASE("generate: greedy texts of different lengths are what the plain loop continues") {
  model_on_device model(two_layers(64));
  texts const prompts{some_tokens(11, 1), {3}, some_tokens(6, 2)};
  generate_options options;
  options.length = 6;
  auto const made = model.generate(prompts, options);
  REQUIRE(made.size() == 3);
  int decided = 0;
  for (std::size_t s = 0; s < 3; ++s) {
    REQUIRE(made[s].size() == 6);
    decided += check_greedy(model, prompts[s], made[s]);
  }
  CHECK(2 * decided >= 3 * 6);  // or nothing was shown
  CHECK(model.generate(prompts, options) == made);
}

TEST_CASE("generate: a stop token or the caller ends one text, and the others go on as before") {
  model_on_device model(two_layers(64));
  texts const prompts{some_tokens(4, 10), some_tokens(9, 11)};
  generate_options options;
  options.length = 6;
  auto const whole = model.generate(prompts, options);
  std::vector<std::pair<index_t, std::uint32_t>> told;
  auto const made = model.generate(prompts, options, [&](index_t s, std::uint32_t token) {
    told.emplace_back(s, token);
    return s != 0 || told.size() < 3;  // the first text's second token is its last
  });
  CHECK(made[0] == std::vector<std::uint32_t>(whole[0].begin(), whole[0].begin() + 2));
  CHECK(made[1] == whole[1]);
  std::vector<std::pair<index_t, std::uint32_t>> expected;
  for (std::size_t i = 0; i < 6; ++i) {
    if (i < 2) expected.emplace_back(0, whole[0][i]);
    expected.emplace_back(1, whole[1][i]);
  }
  CHECK(told == expected);
  options.stop_tokens = {whole[1][2], 1000};
  auto const stopped = model.generate(prompts, options);
  for (std::size_t s = 0; s < 2; ++s) {
    auto const first = std::find(whole[s].begin(), whole[s].end(), whole[1][2]);
    CHECK(stopped[s] == std::vector<std::uint32_t>(whole[s].begin(), first == whole[s].end() ? first : first + 1));
  }
}

TEST_CASE("generate: drawn tokens are those of the host's sampler, wherever they are drawn") {
  model_on_device model(two_layers(64));
  texts const prompts{some_tokens(4, 12), some_tokens(2, 13)};
  generate_options on_device, on_host;
  on_device.length = on_host.length = 4;
  on_device.first_sequence = on_host.first_sequence = 40;
  on_device.sampling.temperature = on_host.sampling.temperature = 1.5;
  on_device.sampling.seed = on_host.sampling.seed = 7;
  on_host.sampling.top_k = 9;
  for (auto const& options : {on_device, on_host}) {
    cuda::device_generation<bfloat16> state(model.on(), model.m, 2, 10);
    for (index_t s = 0; s < 2; ++s) state.prefill(s, prompts[static_cast<std::size_t>(s)]);
    sampler draw(options.sampling);
    texts expected(2);
    for (std::uint64_t step = 0; step < 4; ++step) {
      auto const logits = state.logits();
      std::vector<std::int32_t> next;
      for (std::uint64_t s = 0; s < 2; ++s) {
        expected[s].push_back(draw(row(as_const(logits.view()), static_cast<index_t>(s)), 40 + s, step));
        next.push_back(static_cast<std::int32_t>(expected[s].back()));
      }
      state.set_tokens(next);
      if (step < 3) state.step();
    }
    CHECK(model.generate(prompts, options) == expected);
  }
}

TEST_CASE("generate: nothing to do, and what cannot be done") {
  model_on_device model(two_layers(64));
  generate_options options;
  CHECK(model.generate({{1}, {}}, options) == texts(2));
  options.length = 1;
  CHECK(model.generate({}, options).empty());
  CHECK(model.generate({{5, 23}}, options)[0].size() == 1);
  CHECK_THROWS_WITH_AS(model.generate({{1}, {}}, options), "generate: prompt: expected at least one token", error);
  CHECK_THROWS_WITH_AS(model.generate({{24}}, options), "generate: expected an id below 24, found 24", error);
  options.length = -1;
  CHECK_THROWS_WITH_AS(model.generate({{1}}, options), "generate: length: expected a count >= 0", error);
}

TEST_CASE("generate: a text that has ended does not run into the window of the others") {
  auto config = two_layers(64);
  config.sliding_window = 8;
  model_on_device model(config);
  texts const prompts{some_tokens(7, 1), {3}};
  generate_options options;
  options.length = 6;
  auto const others_go_on = [&](index_t s, std::uint32_t) { return s != 0; };
  auto const made = model.generate(prompts, options, others_go_on);
  CHECK(made[0].size() == 1);
  CHECK(made[1].size() == 6);
  CHECK_THROWS_AS(static_cast<void>(model.generate(prompts, options)), error);
}

}  // namespace cuda_generate_test
