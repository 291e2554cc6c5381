// What a backend hands over, and what stays with it.
#include <model/support.hpp>

#include <slimtrim/model/accelerator.hpp>
#include <slimtrim/model/generate.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace model_accelerator_test {

using namespace slimtrim_tests;

namespace {

// Does on another host backend what it is asked for, and counts.
class counting_accelerator final : public accelerator {
 public:
  int layers = 0, attentions = 0, feed_forwards = 0, heads = 0, products = 0, grams = 0, sweeps = 0, systems = 0, clips = 0, searches = 0, prunings = 0;
  index_t last_window = 0;
  bool takes_products = true;

  void layer(model_config const& config, decoder_layer const& weights, matrix_view<float> X, index_t window,
             layer_hooks const& hooks) override {
    ++layers;
    attention(config, weights, X, window, hooks);
    if (hooks.attention_residual) hooks.attention_residual(as_const(X));
    feed_forward(config, weights, X, hooks);
  }
  void attention(model_config const& config, decoder_layer const& weights, matrix_view<float> X, index_t window,
                 layer_hooks const& hooks) override {
    ++attentions;
    last_window = window;
    std::vector<token_sequence> const sequences(static_cast<std::size_t>(X.extent(0) / window),
                                                token_sequence{window, 0, nullptr});
    forward_attention(backend_, config, weights, 0, X, std::span<token_sequence const>(sequences), work_);
    if (hooks.attention_context) hooks.attention_context(as_const(X));
  }
  void feed_forward(model_config const& config, decoder_layer const& weights, matrix_view<float> X,
                    layer_hooks const& hooks) override {
    ++feed_forwards;
    forward_feed_forward(backend_, config, weights, 0, X, work_);
    if (hooks.feed_forward_output) hooks.feed_forward_output(as_const(X));
  }
  void logits(model_config const& config, model_ends const& ends, matrix_view<float const> X,
              matrix_view<float> logits) override {
    ++heads;
    final_logits(backend_, config, ends, X, logits, work_);
  }
  bool gemm(float alpha, matrix_view<float const> A, matrix_view<float const> B, float beta,
            matrix_view<float> C) override {
    if (takes_products) backend_.gemm(alpha, A, B, beta, C);
    ++products;
    return takes_products;
  }
  std::optional<bool> solve_positive_definite(matrix_view<float> H, matrix_view<float> B) override {
    ++systems;
    if (!takes_products) return std::nullopt;
    return backend_.solve_positive_definite(H, B);
  }
  std::optional<bool> inverse_factor(matrix_view<float const> H, matrix_view<float> R) override {
    ++systems;
    if (!takes_products) return std::nullopt;
    return backend_.inverse_factor(H, R);
  }
  std::optional<gptq_result> gptq(matrix_view<float const> W, matrix_view<float const> hessian,
                                  gptq_options const& options, matrix_view<float const> judge) override {
    ++sweeps;
    if (!takes_products) return std::nullopt;
    return slimtrim::gptq(backend_, W, hessian, options, judge);
  }
  std::optional<quantized_matrix> awq(matrix_view<float const> W, matrix_view<float const> hessian, std::vector<float> const& scales,
                                      awq_options const& options, matrix_view<float const> judge, index_t* rows_kept) override {
    ++clips;
    if (!takes_products) return std::nullopt;
    return slimtrim::awq(backend_, W, hessian, scales, options, judge, rows_kept);
  }
  std::optional<awq_scales> search_awq_scales(std::vector<awq_member<float>> const& members, awq_options const& options,
                                              std::vector<index_t> const& tied) override {
    ++searches;
    if (!takes_products) return std::nullopt;
    return slimtrim::search_awq_scales(backend_, members, options, tied);
  }
  std::optional<sparsegpt_result> sparsegpt(matrix_view<float const> W, matrix_view<float const> hessian,
                                            sparsegpt_options const& options) override {
    ++prunings;
    if (!takes_products) return std::nullopt;
    return slimtrim::sparsegpt(backend_, W, hessian, options);
  }
  bool gram_update(float alpha, matrix_view<float const> X, matrix_view<float> H) override {
    if (takes_products) backend_.gram_update(alpha, X, H);
    ++grams;
    return takes_products;
  }

 private:
  eigen_backend backend_;
  forward_workspace work_;
};

struct watcher {
  int contexts = 0, residuals = 0, outputs = 0;
  void attention_context(index_t, matrix_view<float const>) { ++contexts; }
  void attention_residual(index_t, matrix_view<float const>) { ++residuals; }
  void feed_forward_output(index_t, matrix_view<float const>) { ++outputs; }
};

tensor<float, 2> const& small_gram() {
  static tensor<float, 2> const gram = [] {
    tensor<float, 2> const X = random_matrix(9, 4, 8);
    tensor<float, 2> H(4, 4);
    H.fill(0.0F);
    eigen_backend{}.gram_update(1.0F, X.view(), H.view());
    return H;
  }();
  return gram;
}

}  // namespace

TEST_CASE("accelerator: both halves of a layer and logits go to the device, hooks with them") {
  model const& m = tiny_mixtral();
  auto const ids = input64();
  counting_accelerator device;
  accelerated<eigen_backend> const lent(eigen_backend{}, &device);
  forward_workspace work;
  tensor<float, 2> expected(64, m.config.hidden), found(64, m.config.hidden);
  forward(eigen_backend{}, m, ids, expected.view(), work);
  watcher seen;
  token_sequence const whole[1] = {{64, 0, nullptr}};
  forward(lent, m, ids, found.view(), work, seen);
  CHECK(largest_difference(found.view(), expected.view()) == 0);
  CHECK(device.layers == 8);
  CHECK(device.last_window == 64);
  CHECK(seen.contexts == 8);
  CHECK(seen.residuals == 8);
  CHECK(seen.outputs == 8);
  forward_attention(lent, m.config, m.layers[0], 0, found.view(), std::span<token_sequence const>(whole), work, seen);
  forward_feed_forward(lent, m.config, m.layers[0], 0, found.view(), work, seen);
  CHECK(device.layers == 8);
  CHECK(device.attentions == 9);
  CHECK(device.feed_forwards == 9);
  CHECK(seen.residuals == 9);
  tensor<float, 2> logits(2, m.config.vocabulary);
  final_logits(lent, m.config, m.ends, rows(as_const(found.view()), 0, 2), logits.view(), work);
  CHECK(device.heads == 1);
}

TEST_CASE("accelerator: windows of several lengths and caches stay on the host") {
  model const& m = tiny_mixtral();
  counting_accelerator device;
  accelerated<eigen_backend> const lent(eigen_backend{}, &device);
  forward_workspace work;
  tensor<float, 2> X = random_matrix(7, m.config.hidden, 1);
  token_sequence const uneven[2] = {{3, 0, nullptr}, {4, 0, nullptr}};
  forward_attention(lent, m.config, m.layers[0], 0, X.view(), std::span<token_sequence const>(uneven), work);
  CHECK(device.attentions == 0);
  kv_cache cache(m.config, 7);
  token_sequence const cached[1] = {{7, 0, &cache}};
  forward_attention(lent, m.config, m.layers[0], 0, X.view(), std::span<token_sequence const>(cached), work);
  CHECK(device.attentions == 0);
}

TEST_CASE("accelerator: products that it refuses, doubles, and none at all are the base's") {
  counting_accelerator device;
  eigen_backend const base;
  accelerated<eigen_backend> const lent(base, &device), alone(base);
  tensor<float, 2> const A = random_matrix(5, 6, 2), B = random_matrix(6, 4, 3);
  tensor<float, 2> expected(5, 4), found(5, 4);
  base.gemm(1.0F, A.view(), B.view(), 0.0F, expected.view());
  for (bool const takes : {true, false}) {
    device.takes_products = takes;
    found.fill(-1.0F);
    lent.gemm(1.0F, A.view(), B.view(), 0.0F, found.view());
    CHECK(largest_difference(found.view(), expected.view()) == 0);
    tensor<float, 2> H(6, 6), G(6, 6);
    H.fill(0.0F);
    G.fill(0.0F);
    lent.gram_update(2.0F, A.view(), H.view());
    base.gram_update(2.0F, A.view(), G.view());
    CHECK(largest_difference(H.view(), G.view()) == 0);
    gptq_result const swept = gptq(lent, B.view(), small_gram().view());
    gptq_result const on_host = gptq(base, B.view(), small_gram().view());
    CHECK(swept.report.error == on_host.report.error);
    sparsegpt_options const halves{.pattern = {.keep = 2, .of = 4}};
    CHECK(sparsegpt(lent, B.view(), small_gram().view(), halves).report.error ==
          sparsegpt(base, B.view(), small_gram().view(), halves).report.error);
    std::vector<awq_member<float>> const members{{B.view(), small_gram().view()}};
    awq_scales const scales = search_awq_scales(lent, members), wanted_scales = search_awq_scales(base, members);
    CHECK(scales.scales == wanted_scales.scales);
    CHECK(scales.error == wanted_scales.error);
    index_t kept = -1, wanted_kept = -1;
    quantized_matrix const clipped = awq(lent, B.view(), small_gram().view(), scales.scales, {}, {}, &kept);
    quantized_matrix const on_base = awq(base, B.view(), small_gram().view(), scales.scales, {}, {}, &wanted_kept);
    CHECK(kept == wanted_kept);
    CHECK(std::equal(clipped.words.view().data, clipped.words.view().data + clipped.words.view().size(), on_base.words.view().data));
    for (double const sign : {1.0, -1.0}) {  // definite, and not
      tensor<float, 2> system = small_gram().clone(), other = small_gram().clone(), X = random_matrix(4, 3, 5), Y = X.clone();
      tensor<float, 2> factor(4, 4), wanted(4, 4);
      for (tensor<float, 2>* const each : {&system, &other})
        for (index_t i = 0; i < 16; ++i) each->view().data[i] *= static_cast<float>(sign);
      CHECK(lent.inverse_factor(as_const(system.view()), factor.view()) == (sign > 0));
      REQUIRE(base.inverse_factor(as_const(system.view()), wanted.view()) == (sign > 0));
      if (sign > 0) CHECK(largest_difference(factor.view(), wanted.view()) == 0);
      CHECK(lent.solve_positive_definite(system.view(), X.view()) == (sign > 0));
      REQUIRE(base.solve_positive_definite(other.view(), Y.view()) == (sign > 0));
      if (sign > 0) CHECK(largest_difference(X.view(), Y.view()) == 0);
    }
  }
  // What SparseGPT does itself, it does by the device's factors and products: one system and two products of a refused sweep.
  CHECK(device.prunings == 2);
  CHECK(device.systems == 9);
  CHECK(device.sweeps == 2);
  CHECK(device.clips == 2);
  CHECK(device.searches == 2);
  CHECK(device.products == 4);
  CHECK(device.grams == 2);
  found.fill(-1.0F);
  alone.gemm(1.0F, A.view(), B.view(), 0.0F, found.view());
  CHECK(largest_difference(found.view(), expected.view()) == 0);
  CHECK(alone.lent() == nullptr);
  tensor<double, 2> C(1, 1), D(1, 1);
  C.fill(3.0);
  lent.gemm(1.0, C.view(), C.view(), 0.0, D.view());
  CHECK(D(0, 0) == 9.0);
  CHECK(device.products == 4);
}

}  // namespace model_accelerator_test
