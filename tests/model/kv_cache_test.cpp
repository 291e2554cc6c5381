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

TEST_CASE("a smaller cache changes logits by what its rounding allows") {
  model const m = small_model(small_mixtral_config());
  auto const ids = some_tokens(23, 40);
  forward_workspace work;
  tensor<float, 2> states(1, m.config.hidden), whole(1, 40), logits(1, 40);
  double last = 0;
  for (kv_precision const precision : {kv_precision::floating, kv_precision::float16, kv_precision::int8}) {
    kv_cache cache(m.config, 23, precision);
    for (index_t t = 0; t < 23; ++t) {
      token_sequence const part[1] = {{1, t, &cache}};
      forward(eigen_backend(), m, std::span(ids).subspan(static_cast<std::size_t>(t), 1),
              std::span<token_sequence const>(part), states.view(), work);
    }
    final_logits(eigen_backend(), m.config, m.ends, states.view(), logits.view(), work);
    if (precision == kv_precision::floating) std::copy_n(logits.view().data, 40, whole.view().data);
    double const off = largest_difference(as_const(logits.view()), as_const(whole.view()));
    // Logits of size 8 through three layers: elements are rounded to 2^-11 and to 2^-8 of themselves or their head's
    // largest.
    CHECK(off <= (precision == kv_precision::floating ? 0.0 : precision == kv_precision::float16 ? 0.02 : 0.3));
    CHECK((precision == kv_precision::floating || off > last));
    last = off;
  }
}

TEST_CASE("every stored element is within its documented bound, wherever it lies") {
  model_config config;
  config.key_value_heads = 3, config.head_dim = 10;
  config.layers.resize(2);
  config.layers[0].attention = false;
  auto const K = random_matrix(37, 30, 1), V = random_matrix(37, 30, 2, 100);
  thread_pool pool(2);
  for (kv_precision const precision : {kv_precision::floating, kv_precision::float16, kv_precision::int8}) {
    kv_cache cache(config, 37, precision);
    cache.store(&pool, 1, 0, rows(K.view(), 0, 20), rows(V.view(), 0, 20));
    cache.store(nullptr, 1, 20, rows(K.view(), 20, 17), rows(V.view(), 20, 17));
    kv_view const kept = cache.view(1, 37);
    double worst = 0;
    for (index_t j = 0; j < 37; ++j)
      for (index_t head = 0; head < 3; ++head) {
        double largest[2] = {};
        for (index_t d = 0; d < 10; ++d) {
          largest[0] = std::max(largest[0], std::fabs(static_cast<double>(K(j, head * 10 + d))));
          largest[1] = std::max(largest[1], std::fabs(static_cast<double>(V(j, head * 10 + d))));
        }
        for (index_t d = 0; d < 10; ++d) {
          double const k = static_cast<double>(K(j, head * 10 + d)), v = static_cast<double>(V(j, head * 10 + d));
          double bound[2] = {0, 0};
          if (precision == kv_precision::float16)
            bound[0] = std::fabs(k) * 0x1p-11 + 0x1p-25, bound[1] = std::fabs(v) * 0x1p-11;
          if (precision == kv_precision::int8)
            for (int i = 0; i < 2; ++i) bound[i] = largest[i] / 254 * (1 + 0x1p-20);
          worst = std::max(worst, std::fabs(static_cast<double>(kept.key(j, head, d)) - k) - bound[0]);
          worst = std::max(worst, std::fabs(static_cast<double>(kept.value(j, head, d)) - v) - bound[1]);
        }
      }
    CHECK(worst <= 0);
    tensor<float, 2> k(5, 10), v(5, 10);
    kept.expand(2, 14, k.view(), v.view());
    CHECK(k(3, 7) == kept.key(17, 2, 7));
    CHECK(v(3, 7) == kept.value(17, 2, 7));
  }
}

TEST_CASE("float16 holds what it can of large numbers, int8 refuses what is not finite and takes tiny heads as zero") {
  model_config config;
  config.key_value_heads = 1, config.head_dim = 4;
  config.layers.resize(1);
  tensor<float, 2> X(1, 4);
  X.fill(1e-38F);
  kv_cache bytes(config, 1, kv_precision::int8), halves(config, 1, kv_precision::float16);
  bytes.store(nullptr, 0, 0, X.view(), X.view());
  CHECK(bytes.view(0, 1).key(0, 0, 2) == 0.0F);
  X(0, 1) = -1e30F;
  halves.store(nullptr, 0, 0, X.view(), X.view());
  CHECK(halves.view(0, 1).value(0, 0, 1) == -65504.0F);
  X(0, 1) = std::nanf("");
  CHECK_THROWS_AS(bytes.store(nullptr, 0, 0, X.view(), X.view()), numeric_error);
  CHECK_THROWS_AS(bytes.store(nullptr, 0, 1, X.view(), X.view()), error);
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
