#include "kernel_suite.hpp"

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/model/attention.hpp>
#include <slimtrim/model/kv_cache.hpp>
#include <slimtrim/simd/backend.hpp>

namespace simd_attention_test {

using namespace simd_suite;

static_assert(fuses_cached_attention<simd_backend>, "decoding must take the kernel");
static_assert(!fuses_cached_attention<eigen_backend>);

// Random shapes of one head are in kernel_suite.hpp.
TEST_CASE("few queries over a cache equal the generic attention in every storage, bit-equal on any threads") {
  random_source random{41};
  thread_pool two(2), seven(7);
  simd_backend const serial, on_two(two), on_seven(seven);
  for (attention_shape const shape :
       {attention_shape{4, 1, 32}, attention_shape{6, 6, 16}, attention_shape{10, 2, 80}, attention_shape{4, 2, 20}}) {
    model_config config;
    config.key_value_heads = shape.key_value_heads, config.head_dim = shape.head_dim;
    config.layers.resize(1);
    for (kv_precision const precision : {kv_precision::floating, kv_precision::float16, kv_precision::int8})
      for (index_t const tokens : {1, 3, 16, 17}) {
        for (index_t const before : {1, 15, 16, 200}) {
          CAPTURE(tokens);
          CAPTURE(before);
          index_t const seen = before + tokens, width = shape.key_value_heads * shape.head_dim;
          tensor<float, 2> K(seen, width), V(seen, width), Q(tokens, shape.heads * shape.head_dim);
          for (auto* each : {&K, &V, &Q})
            for (index_t i = 0; i < each->extent(0) * each->extent(1); ++i) each->view().data[i] = random.uniform();
          kv_cache cache(config, seen, precision);
          cache.store(&two, 0, 0, K.view(), V.view());
          tensor<float, 2> expected(tokens, Q.extent(1)), found(tokens, Q.extent(1)), other(tokens, Q.extent(1));
          causal_attention(eigen_backend{}, shape, Q.view(), cache.view(0, seen), before, expected.view());
          CHECK(serial.attend_few(shape, Q.view(), cache.view(0, seen), before, found.view()) ==
                (tokens <= 16 && shape.head_dim % 16 == 0));
          causal_attention(serial, shape, Q.view(), cache.view(0, seen), before, found.view());
          double worst = 0;
          auto const n = tokens * Q.extent(1);
          for (index_t i = 0; i < n; ++i)
            worst = std::max(worst, std::fabs(static_cast<double>(expected.view().data[i] - found.view().data[i])));
          CHECK(worst < 5e-6);  // scores below 10, values below 1
          for (auto const* backend : {&on_two, &on_seven}) {
            causal_attention(*backend, shape, Q.view(), cache.view(0, seen), before, other.view());
            CHECK(std::memcmp(found.view().data, other.view().data, static_cast<std::size_t>(n) * sizeof(float)) == 0);
          }
        }
      }
  }
}

}  // namespace simd_attention_test
