#include <slimtrim/model/kv_cache.hpp>

#include <model/support.hpp>

#include <doctest/doctest.h>

namespace model_kv_cache_test {

using namespace slimtrim_tests;

TEST_CASE("decoding with a cache equals the full forward pass") {
  for (bool const with_drops : {false, true}) {
    ordered_json config = small_mixtral_config();
    if (with_drops) {
      config["num_local_experts"] = ordered_json::array({5, -1, 3});
      config["drop_attn_list"] = ordered_json::array({2});
    }
    model const m = small_model(config);
    eigen_backend const backend;
    auto const ids = some_tokens(23, 40);
    auto const whole = all_logits(backend, m, ids);
    forward_workspace work;
    kv_cache cache(m.config, 23);
    index_t first = 0;
    // Prefill in two uneven chunks, then one token at a time.
    for (index_t const count : {10, 7, 1, 1, 1, 1, 1, 1}) {
      tensor<float, 2> states(count, m.config.hidden), logits(count, 40);
      token_sequence const part[1] = {{count, first, &cache}};
      forward(backend, m, std::span(ids).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)),
              std::span<token_sequence const>(part), states.view(), work);
      final_logits(backend, m.config, m.ends, states.view(), logits.view(), work);
      // Logits of size 8; three layers of float sums in another order.
      CHECK(largest_difference(as_const(logits.view()), rows(as_const(whole.view()), first, count)) < 1e-4);
      first += count;
      CHECK(cache.length() == first);
    }
  }
}

TEST_CASE("several cached sequences in one pass equal each alone") {
  model const m = small_model(small_mixtral_config());
  eigen_backend const backend;
  forward_workspace work;
  auto const a = some_tokens(9, 40, 1), b = some_tokens(4, 40, 2);
  auto const alone_a = all_logits(backend, m, a), alone_b = all_logits(backend, m, b);
  std::vector<std::uint32_t> both(a);
  both.insert(both.end(), b.begin(), b.end());
  kv_cache cache(m.config, 4);
  token_sequence const parts[2] = {{9, 0, nullptr}, {4, 0, &cache}};
  tensor<float, 2> states(13, m.config.hidden), logits(13, 40);
  forward(backend, m, both, std::span<token_sequence const>(parts), states.view(), work);
  final_logits(backend, m.config, m.ends, states.view(), logits.view(), work);
  CHECK(largest_difference(rows(as_const(logits.view()), 0, 9), as_const(alone_a.view())) < 1e-4);
  CHECK(largest_difference(rows(as_const(logits.view()), 9, 4), as_const(alone_b.view())) < 1e-4);
}

TEST_CASE("a full cache is an error, truncation makes room") {
  model const m = small_model(small_mixtral_config());
  eigen_backend const backend;
  forward_workspace work;
  auto const ids = some_tokens(4, 40);
  kv_cache cache(m.config, 5);
  tensor<float, 2> states(4, m.config.hidden);
  token_sequence part[1] = {{4, 0, &cache}};
  forward(backend, m, ids, std::span<token_sequence const>(part), states.view(), work);
  part[0].first_position = 4;
  CHECK_THROWS_WITH_AS(forward(backend, m, ids, std::span<token_sequence const>(part), states.view(), work),
                       "kv_cache: full: 4 tokens at position 4 do not fit a capacity of 5", error);
  CHECK(cache.length() == 4);
  cache.truncate(1);
  part[0].first_position = 1;
  CHECK_NOTHROW(forward(backend, m, ids, std::span<token_sequence const>(part), states.view(), work));
  CHECK(cache.length() == 5);
  CHECK_THROWS_AS(cache.truncate(6), error);
  CHECK_THROWS_AS(kv_cache(m.config, -1), error);
  CHECK_THROWS_AS(cache.advance(1), error);
}

}  // namespace model_kv_cache_test
