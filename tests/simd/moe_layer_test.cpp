#include "kernel_suite.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/model/moe.hpp>
#include <slimtrim/simd/backend.hpp>

#include <memory>

namespace simd_moe_layer_test {

using namespace simd_suite;

static_assert(fuses_moe_layer<simd_backend>, "decoding must take the fused layer");
static_assert(!fuses_moe_layer<simd_product_backend>, "the fallback must not call itself");

namespace {

// Weights whose memory lives as long as the layer.
struct random_layer {
  std::vector<std::unique_ptr<random_codes>> memory;
  random_source random{11};

  weight matrix(index_t rows, index_t columns, int bits) {
    memory.push_back(std::make_unique<random_codes>(random, rows, columns, bits));
    return {memory.back()->view, {}};
  }
  swiglu_weights swiglu(index_t width, index_t hidden, int bits) {
    return {matrix(width, hidden, bits), matrix(width, hidden, bits == 3 ? 8 : bits), matrix(hidden, width, bits)};
  }
};

void prepare_all(simd_backend const& backend, moe_weights& weights) {
  auto each = [&](swiglu_weights& w) {
    w.gate = backend.prepare(w.gate), w.up = backend.prepare(w.up), w.down = backend.prepare(w.down);
  };
  for (auto& expert : weights.experts)
    if (!expert.is_novice()) each(expert.swiglu);
  if (weights.shared) each(*weights.shared);
}

}  // namespace

TEST_CASE("the fused layer equals the generic one: unequal experts, a novice, a shared expert, unchosen experts") {
  index_t const hidden = 72;
  random_layer made;
  thread_pool two(2), three(3);
  simd_backend const serial, on_two(two), on_three(three), rounded(two, {.activations = activation_kind::int8});
  for (bool shared : {false, true}) {
    moe_weights weights;
    tensor<float, 2> router(6, hidden);
    for (index_t i = 0; i < 6 * hidden; ++i) router.view().data[i] = made.random.uniform();
    weights.router = own_weight(std::move(router));
    weights.rule.top_k = 2;
    index_t const widths[] = {40, 33, 260, 8, 128};
    int const bits[] = {4, 3, 4, 8, 4};
    for (std::size_t e = 0; e < 5; ++e) weights.experts.push_back({made.swiglu(widths[e], hidden, bits[e]), {}});
    expert_weights novice;
    for (index_t i = 0; i < hidden; ++i) novice.novice.push_back(made.random.uniform());
    weights.experts.push_back(novice);
    if (shared) weights.shared = made.swiglu(50, hidden, 4);
    moe_weights prepared = weights;
    prepare_all(serial, prepared);
    for (index_t tokens : {0, 1, 2, 8, 16, 30}) {
      CAPTURE(tokens);
      tensor<float, 2> X(tokens, hidden), expected(tokens, hidden), found(tokens, hidden), other(tokens, hidden);
      for (index_t i = 0; i < tokens * hidden; ++i) X.view().data[i] = made.random.uniform();
      auto const n = static_cast<std::size_t>(tokens * hidden);
      forward_workspace work;
      moe_layer(reference_backend{}, weights, 0, X.view(), expected.view(), work);
      moe_layer(serial, prepared, 0, X.view(), found.view(), work);
      double error = 0, norm = 1e-30;
      for (std::size_t i = 0; i < n; ++i) {
        double const a = static_cast<double>(expected.view().data[i]), b = static_cast<double>(found.view().data[i]);
        error += (a - b) * (a - b), norm += a * a;
      }
      CHECK(error <= 1e-10 * norm);
      for (auto const* backend : {&on_two, &on_three}) {
        moe_layer(*backend, prepared, 0, X.view(), other.view(), work);
        if (n > 0) CHECK(std::memcmp(found.view().data, other.view().data, n * sizeof(float)) == 0);
      }
      moe_layer(serial, weights, 0, X.view(), other.view(), work);  // not prepared: the generic layer
      error = 0;
      for (std::size_t i = 0; i < n; ++i) {
        double const off = static_cast<double>(expected.view().data[i]) - static_cast<double>(other.view().data[i]);
        error += off * off;
      }
      CHECK(error <= 1e-10 * norm);
      // The generic layer over the same rounded products: a code may round the other way where the hidden rows, added
      // up in another order, differ in their last bit.
      moe_layer(rounded, prepared, 0, X.view(), other.view(), work);
      moe_layer(static_cast<simd_product_backend const&>(rounded), prepared, 0, X.view(), found.view(), work);
      error = 0;
      for (std::size_t i = 0; i < n; ++i) {
        double const off = static_cast<double>(found.view().data[i]) - static_cast<double>(other.view().data[i]);
        error += off * off;
      }
      CHECK(error <= 1e-6 * norm);
    }
  }
}

}  // namespace simd_moe_layer_test
