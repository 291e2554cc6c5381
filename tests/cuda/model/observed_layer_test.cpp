// What the hooks are told about a layer on the device, each step against plain sums over what the step before was told,
// so that nothing is compared but one product or sum at a time.
#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/observed_layer.cuh>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace cuda_observed_layer_test {

using namespace slimtrim;
using cuda_tests::random_weights;

namespace {

using rows_told = std::vector<std::vector<float>>;

rows_told copy(matrix_view<float const> x) {
  rows_told all;
  for (index_t i = 0; i < x.extent(0); ++i) {
    all.emplace_back();
    for (index_t j = 0; j < x.extent(1); ++j) all.back().push_back(x(i, j));
  }
  return all;
}

struct expert_told {
  std::vector<std::int32_t> tokens{};
  std::vector<float> weights{};
  rows_told input{}, hidden{}, output{};
};

// Everything that was told, and in which order.
struct record {
  std::vector<std::string> order{};
  std::map<std::string, rows_told> rows{};
  rows_told logits{}, scores{}, weights{};
  std::vector<std::int32_t> indices{};
  std::map<index_t, expert_told> experts{};

  layer_hooks::rows_hook see(std::string const& name) {
    return [this, name](matrix_view<float const> x) {
      order.push_back(name);
      rows[name] = copy(x);
    };
  }
  layer_hooks::expert_hook see(std::string const& name, rows_told expert_told::*part) {
    return [this, name, part](expert_batch const& b, matrix_view<float const> x) {
      order.push_back(name + " " + std::to_string(b.expert));
      auto& one = experts[b.expert];
      one.tokens.assign(b.tokens.begin(), b.tokens.end());
      one.weights.assign(b.weights.begin(), b.weights.end());
      one.*part = copy(x);
    };
  }
  layer_hooks all_hooks() {
    layer_hooks hooks;
    hooks.feed_forward_input = see("input");
    hooks.feed_forward_output = see("output");
    hooks.shared_hidden = see("shared");
    hooks.dense_hidden = see("dense");
    hooks.expert_input = see("expert input", &expert_told::input);
    hooks.expert_hidden = see("expert hidden", &expert_told::hidden);
    hooks.expert_output = see("expert output", &expert_told::output);
    hooks.router_result = [this](routing_result const& r) {
      order.emplace_back("router");
      logits = copy(r.logits);
      scores = copy(r.probabilities);
      weights = copy(r.weights);
      for (index_t t = 0; t < r.indices.extent(0); ++t)
        for (index_t s = 0; s < r.indices.extent(1); ++s) indices.push_back(r.indices(t, s));
    };
    return hooks;
  }
};

struct sum_and_size {
  double sum = 0, size = 0;
};
// Row r of W times x; W as the device holds it, in 16 bits or as codes.
sum_and_size times_row(weight const& w, index_t r, std::vector<float> const& x) {
  sum_and_size s;
  for (index_t c = 0; c < w.columns(); ++c) {
    auto const* const halves = std::get_if<matrix_view<bfloat16 const>>(&w.view);
    float const element =
        halves != nullptr ? static_cast<float>((*halves)(r, c)) : std::get<quantized_view<>>(w.view)(r, c);
    double const product = static_cast<double>(element) * static_cast<double>(x[static_cast<std::size_t>(c)]);
    s.sum += product;
    s.size += std::abs(product);
  }
  return s;
}
// A sum of n products in float, scales included, is off by so much of the sum of magnitudes.
double in_float(index_t n) { return static_cast<double>(n + 4) * 0x1p-24; }

// h = silu(gate x) (up x), rounded to 8 bits; silu has a slope of at most 1.1, exp and division are off by 2^-21.
void check_hidden(swiglu_weights const& w, std::vector<float> const& x, std::vector<float> const& h) {
  REQUIRE(static_cast<index_t>(h.size()) == w.width());
  double const doubt = 1.01 * in_float(w.gate.columns());
  for (index_t f = 0; f < w.width(); ++f) {
    auto const a = times_row(w.gate, f, x), b = times_row(w.up, f, x);
    double const silu = a.sum * (0.5 + 0.5 * std::tanh(0.5 * a.sum)), expected = silu * b.sum;
    REQUIRE(std::abs(static_cast<double>(h[static_cast<std::size_t>(f)]) - expected) <=
            1.01 * (0x1p-8 + 0x1p-21) * std::abs(expected) +
                doubt * (1.1 * a.size * std::abs(b.sum) + std::abs(silu) * b.size));
  }
}

struct watched {
  cuda_tests::device_memory device;
  model_config config;
  decoder_layer source;
  cuda::layer_shape shape;
  cuda::device_layer<bfloat16> layer;

  watched(model_config const& c, index_t index, random_weights::choice packed, random_weights::choice novice)
      : config(c),
        source(load_layer(c, random_weights(c, packed, novice), index)),
        shape(device.backend().on(), config),
        layer(device.backend().on(), shape, source) {}

  // Rows of the stream as the layer's kernels get them: zero behind the model's columns.
  tensor<bfloat16, 2> input(index_t tokens) const {
    auto X = cuda_tests::random_halves(tokens, shape.padded_hidden, 17);
    for (index_t t = 0; t < tokens; ++t)
      for (index_t j = config.hidden; j < shape.padded_hidden; ++j) X(t, j) = bfloat16(0.0F);
    return X;
  }

  // The result, [tokens, padded hidden]; what is told stands in `later`.
  std::vector<float> run(tensor<bfloat16, 2> const& X, layer_hooks const& hooks, cuda::told_later& later) {
    auto& on = device.backend().on();
    cuda::layer_extents most;
    most.include(layer);
    cuda::layer_workspace<bfloat16> const work(on, shape, most, std::max<index_t>(X.extent(0), 1));
    auto const Y = device.matrix<float>(X.extent(0), shape.padded_hidden);  // poison
    cuda::experts_watch<bfloat16> const watch{on, hooks, source, later, config.hidden};
    watch.experts(layer, as_const(device.upload_matrix<bfloat16>(X)), Y, work);
    device.backend().synchronise();
    return device.download<float>(Y);
  }

  void check(index_t tokens) {
    CAPTURE(tokens);
    auto const X = input(tokens);
    record told;
    cuda::told_later later;
    auto const hooks = told.all_hooks();
    auto const found = run(X, hooks, later);
    CHECK(told.order.empty());  // only later
    for (auto const& tell : later) tell();

    rows_told inputs;
    for (index_t t = 0; t < tokens; ++t) {
      inputs.emplace_back();
      for (index_t j = 0; j < config.hidden; ++j) inputs.back().push_back(static_cast<float>(X(t, j)));
    }
    CHECK(told.rows["input"] == inputs);
    auto const n = static_cast<std::size_t>(tokens), hidden = static_cast<std::size_t>(config.hidden);
    std::vector<std::vector<double>> sums(n, std::vector<double>(hidden, 0.0)), sizes = sums;
    std::vector<std::string> order{"input"};
    if (source.moe) {
      order.emplace_back("router");
      check_routing(told, inputs);
      if (source.moe->shared) {
        order.emplace_back("shared");
        add_every_token(*source.moe->shared, told.rows["shared"], inputs, sums, sizes);
      }
      check_experts(told, inputs, order, sums, sizes);
    } else {
      order.emplace_back("dense");
      add_every_token(*source.dense, told.rows["dense"], inputs, sums, sizes);
    }
    order.emplace_back("output");
    CHECK(told.order == order);
    REQUIRE(told.rows["output"].size() == n);
    // At most 160 columns of a down matrix, then a slot and an addition for each of top_k and the shared expert.
    double const doubt = in_float(160) + in_float(2 * config.top_k);
    for (std::size_t t = 0; t < n; ++t)
      for (std::size_t j = 0; j < hidden; ++j) {
        float const y = told.rows["output"][t][j];
        REQUIRE(std::abs(static_cast<double>(y) - sums[t][j]) <= doubt * sizes[t][j] + 1e-30);
        REQUIRE(found[t * static_cast<std::size_t>(shape.padded_hidden) + j] == y);
      }
    for (std::size_t t = 0; t < n; ++t)
      for (index_t j = config.hidden; j < shape.padded_hidden; ++j)
        REQUIRE(found[t * static_cast<std::size_t>(shape.padded_hidden) + static_cast<std::size_t>(j)] == 0.0F);
  }

 private:
  // Softmax of the logits; the largest of them; each divided by the sum of all or of the chosen.
  void check_routing(record const& told, rows_told const& inputs) {
    moe_weights const& moe = *source.moe;
    REQUIRE(moe.rule.score == score_function::softmax);
    REQUIRE(moe.rule.groups == 1);
    auto const slots = static_cast<std::size_t>(moe.rule.top_k), experts = moe.experts.size();
    REQUIRE(told.indices.size() == inputs.size() * slots);
    for (std::size_t t = 0; t < inputs.size(); ++t) {
      double all = 0, chosen = 0;
      for (std::size_t e = 0; e < experts; ++e) {
        auto const expected = times_row(moe.router, static_cast<index_t>(e), inputs[t]);
        double const logit = static_cast<double>(told.logits[t][e]);
        REQUIRE(std::abs(logit - expected.sum) <= in_float(config.hidden) * expected.size);
        all += std::exp(logit);
      }
      std::vector<std::int32_t> best(experts);
      std::iota(best.begin(), best.end(), 0);
      std::stable_sort(best.begin(), best.end(), [&](std::int32_t a, std::int32_t b) {
        return told.logits[t][static_cast<std::size_t>(a)] > told.logits[t][static_cast<std::size_t>(b)];
      });
      auto const share = [&](std::int32_t e) {
        return std::exp(static_cast<double>(told.logits[t][static_cast<std::size_t>(e)])) / all;
      };
      for (std::size_t s = 0; s < slots; ++s) chosen += share(best[s]);
      // Exponentials, their sum and a division, each to a few last bits of a float.
      for (std::size_t e = 0; e < experts; ++e)
        REQUIRE(static_cast<double>(told.scores[t][e]) ==
                doctest::Approx(share(static_cast<std::int32_t>(e))).epsilon(2e-6));
      for (std::size_t s = 0; s < slots; ++s) {
        REQUIRE(told.indices[t * slots + s] == best[s]);
        double const expected = share(best[s]) / (moe.rule.renormalise ? chosen : 1.0);
        REQUIRE(static_cast<double>(told.weights[t][s]) ==
                doctest::Approx(expected * static_cast<double>(moe.rule.scale)).epsilon(2e-6));
      }
    }
  }

  void add_every_token(swiglu_weights const& w, rows_told const& hidden, rows_told const& inputs,
                       std::vector<std::vector<double>>& sums, std::vector<std::vector<double>>& sizes) const {
    REQUIRE(hidden.size() == inputs.size());
    for (std::size_t t = 0; t < inputs.size(); ++t) {
      check_hidden(w, inputs[t], hidden[t]);
      for (index_t j = 0; j < config.hidden; ++j) {
        auto const y = times_row(w.down, j, hidden[t]);
        sums[t][static_cast<std::size_t>(j)] += y.sum;
        sizes[t][static_cast<std::size_t>(j)] += y.size;
      }
    }
  }

  void check_experts(record const& told, rows_told const& inputs, std::vector<std::string>& order,
                     std::vector<std::vector<double>>& sums, std::vector<std::vector<double>>& sizes) const {
    moe_weights const& moe = *source.moe;
    auto const slots = static_cast<std::size_t>(moe.rule.top_k);
    for (std::size_t e = 0; e < moe.experts.size(); ++e) {
      expert_weights const& expert = moe.experts[e];
      std::vector<std::int32_t> tokens;
      std::vector<float> weights;
      for (std::size_t pair = 0; pair < told.indices.size(); ++pair)
        if (told.indices[pair] == static_cast<std::int32_t>(e)) {
          tokens.push_back(static_cast<std::int32_t>(pair / slots));
          weights.push_back(told.weights[pair / slots][pair % slots]);
        }
      auto const at = told.experts.find(static_cast<index_t>(e));
      REQUIRE((at != told.experts.end()) == !tokens.empty());
      if (tokens.empty()) continue;
      for (char const* const what : {"expert input ", "expert hidden ", "expert output "})
        if (!expert.is_novice() || what == std::string("expert output ")) order.push_back(what + std::to_string(e));
      expert_told const& one = at->second;
      CHECK(one.tokens == tokens);
      CHECK(one.weights == weights);
      REQUIRE(one.output.size() == tokens.size());
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        auto const t = static_cast<std::size_t>(tokens[i]);
        if (expert.is_novice()) {
          REQUIRE(one.output[i] == expert.novice);
        } else {
          REQUIRE(one.input[i] == inputs[t]);
          check_hidden(expert.swiglu, inputs[t], one.hidden[i]);
        }
        for (index_t j = 0; j < config.hidden; ++j) {
          auto const c = static_cast<std::size_t>(j);
          double const output = static_cast<double>(one.output[i][c]);
          if (!expert.is_novice()) {
            auto const y = times_row(expert.swiglu.down, j, one.hidden[i]);
            REQUIRE(std::abs(output - y.sum) <= in_float(expert.swiglu.width()) * y.size);
          }
          sums[t][c] += static_cast<double>(weights[i]) * output;
          sizes[t][c] += std::abs(static_cast<double>(weights[i]) * output);
        }
      }
    }
  }
};

bool nothing_packed(module_id) { return false; }
bool experts_packed(module_id id) {
  return id.role == module_role::gate || id.role == module_role::up || id.role == module_role::down;
}
bool one_novice(module_id id) { return id.expert == 1; }

}  // namespace

TEST_CASE("observed_layer: 16-bit experts and a constant one, padded columns, up to every kernel for many tokens") {
  model_config config = cuda_tests::small_config(mixtral_family, 72, 1);
  config.layers[0].intermediate = 40;
  watched one(config, 0, nothing_packed, one_novice);
  for (index_t tokens : {0, 1, 17, 40, 70}) one.check(tokens);
}

TEST_CASE("observed_layer: 4-bit experts") {
  watched one(cuda_tests::small_config(mixtral_family, 64, 1), 0, experts_packed, nullptr);
  for (index_t tokens : {1, 9, 40}) one.check(tokens);
}

TEST_CASE("observed_layer: a shared expert besides, and a dense layer") {
  watched shared(cuda_tests::small_deepseek(64), 1, nothing_packed, nullptr);
  for (index_t tokens : {1, 17}) shared.check(tokens);
  watched dense(cuda_tests::small_deepseek(64), 0, nothing_packed, nullptr);
  for (index_t tokens : {1, 17}) dense.check(tokens);
}

TEST_CASE("observed_layer: only what is asked for is told, and the sums are those of an unobserved layer") {
  watched one(cuda_tests::small_config(mixtral_family, 64, 1), 0, nothing_packed, one_novice);
  auto const X = one.input(17);
  record told;
  cuda::told_later nobody, outside, inside;
  layer_hooks hooks;
  auto const plain = one.run(X, hooks, nobody);
  CHECK(nobody.empty());
  hooks.feed_forward_output = told.see("output");
  CHECK(one.run(X, hooks, outside) == plain);  // nobody looks inside: the same kernels
  CHECK(outside.size() == 1);
  hooks.expert_output = told.see("expert output", &expert_told::output);
  auto const watched_sums = one.run(X, hooks, inside);
  // Weights join later: each slot is rounded once more, and so is the constant expert.
  float largest = 0;
  for (float const y : plain) largest = std::max(largest, std::abs(y));
  for (std::size_t i = 0; i < plain.size(); ++i) REQUIRE(std::abs(watched_sums[i] - plain[i]) <= 0x1p-21F * largest);
  for (auto const& tell : inside) tell();
  for (auto const& [e, expert] : told.experts) CHECK(expert.input.empty());
  CHECK(told.order.back() == "output");
}

TEST_CASE("observed_layer: the first half's hooks see their own columns as they were when they were told") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  record told;
  layer_hooks hooks;
  cuda::told_later later;
  cuda::attention_watch<bfloat16> const watch{on, hooks, later, 5, 3};
  auto const N = cuda_tests::random_halves(17, 8, 1), Z = cuda_tests::random_halves(1, 8, 2);
  auto const n = device.upload_matrix<bfloat16>(N), z = device.upload_matrix<bfloat16>(Z);
  watch.attention_input(as_const(n));
  CHECK(later.empty());
  hooks.attention_input = told.see("input");
  hooks.attention_context = told.see("context");
  watch.attention_input(as_const(n));
  watch.attention_context(as_const(z));
  cuda::check(cudaMemsetAsync(n.data, 0xff, 17 * 8 * sizeof(bfloat16), on.stream()), "test");  // work goes on
  CHECK(told.order.empty());
  for (auto const& tell : later) tell();
  CHECK(told.order == std::vector<std::string>{"input", "context"});
  REQUIRE(told.rows["input"].size() == 17);
  for (index_t t = 0; t < 17; ++t) {
    REQUIRE(told.rows["input"][static_cast<std::size_t>(t)].size() == 5);
    for (index_t j = 0; j < 5; ++j)
      REQUIRE(told.rows["input"][static_cast<std::size_t>(t)][static_cast<std::size_t>(j)] ==
              static_cast<float>(N(t, j)));
  }
  REQUIRE(told.rows["context"].front().size() == 3);
  for (index_t j = 0; j < 3; ++j)
    CHECK(told.rows["context"].front()[static_cast<std::size_t>(j)] == static_cast<float>(Z(0, j)));
}

}  // namespace cuda_observed_layer_test
