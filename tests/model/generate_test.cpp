#include <slimtrim/model/generate.hpp>

#include <model/support.hpp>

#include <doctest/doctest.h>

namespace model_generate_test {

using namespace slimtrim_tests;

TEST_CASE("greedy generation is the argmax of the full forward pass, token by token") {
  model const m = small_model(small_mixtral_config());
  eigen_backend const backend;
  forward_workspace work;
  auto ids = some_tokens(5, 40);
  auto const made = generate(backend, m, ids, {.length = 12}, work);
  REQUIRE(made.size() == 12);
  for (std::uint32_t const token : made) {
    auto const logits = all_logits(backend, m, ids);
    index_t const last = logits.extent(0) - 1;
    index_t best = 0;
    for (index_t i = 1; i < 40; ++i)
      if (logits(last, i) > logits(last, best)) best = i;
    CHECK(token == static_cast<std::uint32_t>(best));
    ids.push_back(token);
  }
}

TEST_CASE("sequences generated together are those generated alone") {
  model const m = small_model(small_mixtral_config());
  eigen_backend const backend;
  forward_workspace work;
  std::vector<std::vector<std::uint32_t>> const prompts{some_tokens(3, 40, 1), some_tokens(7, 40, 2), {5}};
  generate_options const options{.length = 9, .sampling = {.temperature = 1, .seed = 11}};
  auto const together = generate(backend, m, std::span<std::vector<std::uint32_t> const>(prompts), options, work);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    generate_options alone = options;
    alone.first_sequence = i;
    CHECK(together[i] == generate(backend, m, prompts[i], alone, work));
  }
  CHECK(together[0] != together[2]);
}

TEST_CASE("the same seed repeats, threads change nothing, another seed differs") {
  model const m = small_model(small_mixtral_config());
  eigen_backend const serial;
  thread_pool pool(3);
  eigen_backend const threaded(pool);
  forward_workspace work;
  generate_options options{.length = 20, .sampling = {.temperature = 1, .top_k = 20, .top_p = 0.95, .seed = 3}};
  auto const first = generate(serial, m, {1, 2, 3}, options, work);
  CHECK(first == generate(threaded, m, {1, 2, 3}, options, work));
  options.sampling.seed = 4;
  CHECK(first != generate(serial, m, {1, 2, 3}, options, work));
}

TEST_CASE("stop tokens, callbacks and lengths") {
  model const m = small_model(small_mixtral_config());
  eigen_backend const backend;
  forward_workspace work;
  CHECK(generate(backend, m, {1}, {.length = 0}, work).empty());
  auto const free_run = generate(backend, m, {1}, {.length = 8}, work);
  auto const stopped = generate(backend, m, {1}, {.length = 8, .stop_tokens = {free_run[3]}}, work);
  CHECK(stopped.back() == free_run[3]);
  CHECK(stopped.size() <= 4);
  index_t calls = 0;
  auto const called = generate(backend, m, {1}, {.length = 8}, work, [&](index_t sequence, std::uint32_t token) {
    CHECK(sequence == 0);
    CHECK(token == free_run[static_cast<std::size_t>(calls)]);
    return ++calls < 3;
  });
  CHECK(called.size() == 3);
  CHECK_THROWS_WITH_AS(static_cast<void>(generate(backend, m, std::vector<std::uint32_t>{}, {.length = 1}, work)),
                       "generate: prompt: expected at least one token", error);
  CHECK_THROWS_WITH_AS(static_cast<void>(generate(backend, m, {40}, {.length = 1}, work)),
                       "embed: token 0: expected an id below 40, found 40", error);
}

}  // namespace model_generate_test
