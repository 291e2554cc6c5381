// Layers that the host hands to the device: results and every hook against the host's own pass.
//
// Tolerance: one layer rounds activations to 8 bits about six times, 2^-8 at most each and independently: 1e-2 of the
// size, squared 9e-5.
#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/accelerator.cuh>
#include <slimtrim/model/forward.hpp>
#include <slimtrim/pipeline/layer_moments.hpp>
#include <slimtrim/pipeline/statistics_observer.hpp>
#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

namespace cuda_accelerator_test {

using namespace slimtrim;
using namespace cuda_tests;

namespace {

constexpr double tolerance = 9e-5;

struct record {
  std::map<std::string, std::vector<float>> seen;
  std::vector<std::string> order;
  void keep(std::string const& name, matrix_view<float const> x) {
    order.push_back(name);
    for (index_t i = 0; i < x.extent(0); ++i)
      for (index_t j = 0; j < x.extent(1); ++j) seen[name].push_back(x(i, j));
  }
  void keep(std::string const& name, expert_batch const& b, matrix_view<float const> x) {
    keep(name + std::to_string(b.expert), x);
    for (std::size_t i = 0; i < b.tokens.size(); ++i) {
      seen[name + "tokens"].push_back(static_cast<float>(b.tokens[i]));
      seen[name + "weights"].push_back(b.weights[i]);
    }
  }
  void attention_input(index_t, matrix_view<float const> x) { keep("attention_input", x); }
  void attention_context(index_t, matrix_view<float const> x) { keep("attention_context", x); }
  void attention_residual(index_t, matrix_view<float const> x) { keep("attention_residual", x); }
  void feed_forward_input(index_t, matrix_view<float const> x) { keep("feed_forward_input", x); }
  void router_result(index_t, routing_result const& r) {
    keep("logits", r.logits);
    keep("probabilities", r.probabilities);
    keep("weights", r.weights);
    for (index_t t = 0; t < r.indices.extent(0); ++t)
      for (index_t s = 0; s < r.indices.extent(1); ++s) seen["indices"].push_back(static_cast<float>(r.indices(t, s)));
  }
  void expert_input(index_t, expert_batch const& b, matrix_view<float const> x) { keep("expert_input", b, x); }
  void expert_hidden(index_t, expert_batch const& b, matrix_view<float const> x) { keep("expert_hidden", b, x); }
  void expert_output(index_t, expert_batch const& b, matrix_view<float const> x) { keep("expert_output", b, x); }
  void shared_hidden(index_t, matrix_view<float const> x) { keep("shared_hidden", x); }
  void dense_hidden(index_t, matrix_view<float const> x) { keep("dense_hidden", x); }
  void feed_forward_output(index_t, matrix_view<float const> x) { keep("feed_forward_output", x); }
  void block_output(index_t, matrix_view<float const> x) { keep("block_output", x); }
};

double normalised_error(std::vector<float> const& found, std::vector<float> const& expected) {
  REQUIRE(found.size() == expected.size());
  double error = 0, size = 1e-30;
  for (std::size_t i = 0; i < found.size(); ++i) {
    double const difference = static_cast<double>(found[i]) - static_cast<double>(expected[i]);
    error += difference * difference;
    size += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return error / size;
}

tensor<float, 2> random_stream(index_t rows, index_t hidden) {
  tensor<float, 2> X(rows, hidden);
  for (index_t i = 0; i < rows * hidden; ++i)
    X.view().data[i] = static_cast<float>(normal_at(6, 6, static_cast<std::uint64_t>(i)));
  return X;
}

void check(model_config const& config, random_weights::choice packed, random_weights::choice novice, index_t windows,
           index_t window) {
  random_weights const source(config, packed, novice);
  cuda::device_accelerator<bfloat16> device(nullptr);
  reference_backend const host;
  accelerated<reference_backend> const lent(host, &device);
  std::vector<token_sequence> const sequences(static_cast<std::size_t>(windows), token_sequence{window, 0, nullptr});
  for (index_t i = 0; i < config.layer_count(); ++i) {
    decoder_layer const layer = load_layer(config, source, i);
    tensor<float, 2> expected = random_stream(windows * window, config.hidden), found = expected.clone(),
                     plain = expected.clone();
    forward_workspace work;
    record on_host, on_device;
    forward_layer(host, config, layer, i, expected.view(), std::span<token_sequence const>(sequences), work, on_host);
    forward_layer(lent, config, layer, i, found.view(), std::span<token_sequence const>(sequences), work, on_device);
    forward_layer(lent, config, layer, i, plain.view(), std::span<token_sequence const>(sequences), work);
    CAPTURE(i);
    CHECK(on_device.order == on_host.order);
    CHECK(on_device.seen["indices"] == on_host.seen["indices"]);
    for (auto const& entry : on_host.seen) {
      CAPTURE(entry.first);
      CHECK(normalised_error(on_device.seen[entry.first], entry.second) < tolerance);
    }
    // Nobody watching: the fused path, whose sums differ by the rounding of a float.
    std::vector<float> const a(plain.view().data, plain.view().data + plain.view().size()),
        b(found.view().data, found.view().data + found.view().size());
    CHECK(normalised_error(a, b) < 1e-12);
  }
}

bool nothing(module_id) { return false; }
bool experts_packed(module_id id) {
  return id.role == module_role::gate || id.role == module_role::up || id.role == module_role::down ||
         id.role == module_role::query;
}
bool one_novice(module_id id) { return id.expert == 1; }

}  // namespace

TEST_CASE("accelerator: layers and hooks, Mixtral with dropped parts and a constant expert") {
  check(trimmed_mixtral(128), experts_packed, one_novice, 2, 7);
  check(trimmed_mixtral(72), nothing, nullptr, 1, 5);
}

TEST_CASE("accelerator: layers and hooks, DeepSeek, few and many tokens an expert") {
  check(small_deepseek(64), nothing, nullptr, 5, 1);
  check(small_deepseek(64), experts_packed, nullptr, 1, 70);
}

TEST_CASE("accelerator: a changed layer is not mistaken for the one that was there") {
  model_config const config = small_config(mixtral_family, 64, 1);
  random_weights const source(config, nothing, nullptr);
  cuda::device_accelerator<bfloat16> device(nullptr, {}, 2);
  accelerated<reference_backend> const lent(reference_backend{}, &device);
  forward_workspace work;
  auto const run = [&](decoder_layer const& layer) {
    tensor<float, 2> X = random_stream(3, 64);
    forward_layer(lent, config, layer, 0, X.view(), work);
    return std::vector<float>(X.view().data, X.view().data + X.view().size());
  };
  decoder_layer layer = load_layer(config, source, 0);
  auto const before = run(layer);
  CHECK(run(layer) == before);
  layer.moe->experts[0].swiglu.down = own_weight(tensor<float, 2>(random_stream(64, 64)));
  layer.attention->norm[3] += 1;
  auto const changed = run(layer);
  CHECK(changed != before);
  cuda::device_accelerator<bfloat16> fresh(nullptr);
  accelerated<reference_backend> const other(reference_backend{}, &fresh);
  tensor<float, 2> X = random_stream(3, 64);
  forward_layer(other, config, layer, 0, X.view(), work);
  CHECK(changed == std::vector<float>(X.view().data, X.view().data + X.view().size()));
}

TEST_CASE("accelerator: an observer may use the device that it watches") {
  model_config const config = small_config(mixtral_family, 64, 1);
  random_weights const source(config, nothing, nullptr);
  cuda::device_accelerator<bfloat16> device(nullptr);
  accelerated<reference_backend> const lent(reference_backend{}, &device);
  struct updating {
    accelerator& device;
    tensor<float, 2> const& Z;
    tensor<float, 2>& H;
    int updates = 0;
    void attention_context(index_t, matrix_view<float const>) {
      updates += device.gram_update(1.0F, Z.view(), H.view()) ? 1 : 0;
    }
    void expert_hidden(index_t, expert_batch const&, matrix_view<float const>) {
      updates += device.gram_update(1.0F, Z.view(), H.view()) ? 1 : 0;
    }
  };
  tensor<float, 2> const Z = random_stream(110, 512);
  tensor<float, 2> H(512, 512);
  H.fill(0.0F);
  updating observer{device, Z, H};
  tensor<float, 2> X = random_stream(1, 64);
  forward_workspace work;
  forward_layer(lent, config, load_layer(config, source, 0), 0, X.view(), work, observer);
  CHECK(observer.updates == 3);  // the context, and two experts
}

namespace {

struct hessians {
  matrix<float> context, pooled, shared;
  std::vector<matrix<float>> inputs, hidden;
  std::vector<double> tokens, squares;
};

// What the calibrated pass collects of a layer, in two batches.
template <class B>
hessians collect(B const& backend, model_config const& config, decoder_layer const& layer, bool weighted,
                 std::vector<float> const& counts) {
  index_t const batch = 6;
  std::size_t const experts = layer.moe ? layer.moe->experts.size() : 0;
  hessians all;
  all.context = zero_moments(config.heads * config.head_dim);
  all.pooled = zero_moments(config.hidden);
  all.tokens.assign(experts, 0.0);
  all.squares.assign(experts, 0.0);
  std::vector<index_t> const offsets(experts + 1, -1);
  for (std::size_t e = 0; e < experts; ++e) {
    all.inputs.push_back(zero_moments(config.hidden));
    bool const novice = layer.moe->experts[e].is_novice();
    all.hidden.push_back(zero_moments(novice ? 0 : layer.moe->experts[e].swiglu.width()));
  }
  bool const has_shared = layer.dense || (layer.moe && layer.moe->shared);
  if (has_shared) all.shared = zero_moments(layer.dense ? layer.dense->width() : layer.moe->shared->width());
  context_observer<B> context{&backend, &all.context, nullptr, {}, counts, false, {}};
  expert_input_observer<B> input;
  input.backend = &backend;
  input.hessians = &all.inputs;
  input.tokens = &all.tokens;
  input.squares = &all.squares;
  input.pooled = &all.pooled;
  input.weighted = weighted;
  input.counts = counts;
  hidden_observer<B> hidden;
  hidden.backend = &backend;
  hidden.hessians = &all.hidden;
  hidden.shared_hessian = has_shared ? &all.shared : nullptr;
  hidden.weighted = weighted;
  hidden.offsets = &offsets;
  hidden.counts = counts;
  forward_workspace work;
  token_sequence const window[1] = {{batch, 0, nullptr}};
  for (index_t b = 0; b < 2; ++b) {
    tensor<float, 2> stream = random_stream(2 * batch, config.hidden);
    forward_attention(backend, config, layer, 0, rows(stream.view(), b * batch, batch), std::span<token_sequence const>(window), work, context);
    tensor<float, 2> again = random_stream(2 * batch, config.hidden);
    forward_feed_forward(backend, config, layer, 0, rows(again.view(), b * batch, batch), work, input);
    again = random_stream(2 * batch, config.hidden);
    hidden.begin();
    forward_feed_forward(backend, config, layer, 0, rows(again.view(), b * batch, batch), work, hidden);
  }
  return all;
}

void compare(matrix<float> const& found, matrix<float> const& expected) {
  CHECK(normalised_error(std::vector<float>(found.view().data, found.view().data + found.view().size()),
                         std::vector<float>(expected.view().data, expected.view().data + expected.view().size())) <
        4 * tolerance);  // twice the rows' relative error
}

void check_sums(model_config const& config, random_weights::choice packed, random_weights::choice novice) {
  random_weights const source(config, packed, novice);
  reference_backend const host;
  for (index_t i = 0; i < config.layer_count(); ++i)
    for (bool const weighted : {false, true})
      for (std::vector<float> const& counts : {std::vector<float>{}, std::vector<float>{1, 2, 0.5F, 3, 1, 0.25F}}) {
        decoder_layer const layer = load_layer(config, source, i);
        cuda::device_accelerator<bfloat16> device(nullptr);
        accelerated<reference_backend> const lent(host, &device);
        hessians const expected = collect(host, config, layer, weighted, counts);
        hessians const found = collect(lent, config, layer, weighted, counts);
        CAPTURE(i);
        CAPTURE(weighted);
        CHECK(found.pooled(0, 0) == 0.0F);  // all of it is still on the device
        device.collect_sums();
        compare(found.context, expected.context);
        compare(found.pooled, expected.pooled);
        if (expected.shared.extent(0) > 0) compare(found.shared, expected.shared);
        CHECK(found.tokens == expected.tokens);
        for (std::size_t e = 0; e < expected.inputs.size(); ++e) {
          CAPTURE(e);
          CHECK(found.squares[e] == doctest::Approx(expected.squares[e]).epsilon(weighted ? 1e-2 : 1e-6));
          compare(found.inputs[e], expected.inputs[e]);
          compare(found.hidden[e], expected.hidden[e]);
        }
      }
}

}  // namespace

TEST_CASE("accelerator: Hessians that grow on the device are those of the rows that the host would see") {
  check_sums(trimmed_mixtral(128), experts_packed, one_novice);
  check_sums(trimmed_mixtral(72), nothing, nullptr);
  check_sums(small_deepseek(64), nothing, nullptr);

  model_config const config = small_config(mixtral_family, 72, 1);
  cuda::device_accelerator<bfloat16> device(nullptr);
  reference_backend const host;
  tensor<float, 2> const X = random_stream(9, 72);
  std::vector<float> const norm = random_weights(config, nothing, nullptr).vector({module_role::feed_forward_norm, 0, 0});
  matrix<float> found = zero_moments(72), expected = zero_moments(72);
  tensor<float, 2> N(9, 72);
  rms_norm(host, as_const(X.view()), norm, config.rms_epsilon, N.view());
  host.gram_update(1.0F, as_const(N.view()), expected.view());
  CHECK(device.add_normed_gram(norm, config.rms_epsilon, X.view(), found.view()));
  device.collect_sums();
  compare(found, expected);
}

namespace {

// Two windows through every layer: the sums of a host observer, and those that come from the device.
void check_statistics(model_config const& config, random_weights::choice packed) {
  random_weights const source(config, packed, nullptr);
  reference_backend const host;
  cuda::device_accelerator<bfloat16> device(nullptr);
  index_t const window = 9;
  for (index_t i = 0; i < config.layer_count(); ++i) {
    decoder_layer const layer = load_layer(config, source, i);
    layer_statistics_options const wanted{.experts = config.layer(i).experts, .hidden = config.hidden,
                                          .intermediate = config.layer(i).intermediate, .outputs = true, .neurons = true};
    slimtrim::detail::statistics_observer<reference_backend> on_host(host, wanted, false), on_device(host, wanted, false);
    for (index_t w = 0; w < 2; ++w) {
      tensor<float, 2> all = random_stream(2 * window, config.hidden), same = all.clone();
      auto const there = rows(all.view(), w * window, window), here = rows(same.view(), w * window, window);
      forward_workspace work;
      forward_layer(host, config, layer, i, here, work, on_host);
      layer_sums sums;
      REQUIRE(device.statistics(config, layer, there, wanted, sums));
      on_device.add(sums);
      CHECK(normalised_error(std::vector<float>(there.data, there.data + there.size()),
                             std::vector<float>(here.data, here.data + here.size())) < tolerance);
    }
    std::map<std::string, std::vector<double>> found, expected;
    auto const values_into = [](std::map<std::string, std::vector<double>>& to) {
      return [&to](exact_array const& sum) {
        for (std::size_t k = 0; k < sum.size(); ++k) to[sum.name()].push_back(sum.value(static_cast<index_t>(k)));
      };
    };
    layer_statistics::each(on_device.statistics(), values_into(found));
    layer_statistics::each(on_host.statistics(), values_into(expected));
    REQUIRE(found.size() == expected.size());
    for (auto const& [name, values] : expected) {
      CAPTURE(i);
      CAPTURE(name);
      REQUIRE(found[name].size() == values.size());
      // Against the largest of the array: an activation is off by 1 %, its square by twice that, a small difference of
      // cosines, which weighs changes, by more of itself. An error of 1 % of a row in no particular one of 64 directions or
      // more turns a cosine by 1.2e-3; sums of 18 of either sign stay well within 18e-3.
      double largest = 1e-30, worst = 0;
      for (double const value : values) largest = std::max(largest, std::abs(value));
      for (std::size_t k = 0; k < values.size(); ++k) worst = std::max(worst, std::abs(found[name][k] - values[k]));
      bool const counts = name.find("count") != std::string::npos || name.find("tokens") != std::string::npos ||
                          name == "router.coactivation";
      bool const cosines = name == "similarity.block" || name == "similarity.attention" || name == "similarity.moe" ||
                           name == "similarity.moe_without_norm";
      CHECK(worst <= (counts ? 0.0 : (cosines ? 1e-3 * 2 * window : 0.05 * largest)));
    }
  }
}

}  // namespace

TEST_CASE("accelerator: statistics of a window are those that the host sums") {
  check_statistics(trimmed_mixtral(128), experts_packed);
  check_statistics(trimmed_mixtral(72), nothing);
  check_statistics(small_deepseek(64), nothing);

  // What the device leaves to the host: constant experts.
  model_config const config = small_config(mixtral_family, 64, 1);
  random_weights const source(config, nothing, one_novice);
  cuda::device_accelerator<bfloat16> device(nullptr);
  tensor<float, 2> X = random_stream(3, 64), before = X.clone();
  layer_sums sums;
  CHECK_FALSE(device.statistics(config, load_layer(config, source, 0), X.view(), {.experts = config.layer(0).experts}, sums));
  for (index_t k = 0; k < 3 * 64; ++k) REQUIRE(X.view().data[k] == before.view().data[k]);
}

TEST_CASE("accelerator: logits, and large products of any layout") {
  model_config const config = small_config(mixtral_family, 72, 1);
  random_weights const source(config, nothing, nullptr);
  cuda::device_accelerator<bfloat16> device(nullptr);
  reference_backend const host;
  accelerated<reference_backend> const lent(host, &device);
  model_ends const ends = load_ends(config, source);
  forward_workspace work;
  tensor<float, 2> const X = random_stream(4, 72);
  tensor<float, 2> found(4, 70), expected(4, 70);
  final_logits(lent, config, ends, X.view(), found.view(), work);
  final_logits(host, config, ends, X.view(), expected.view(), work);
  auto const values = [](tensor<float, 2> const& x) {
    return std::vector<float>(x.view().data, x.view().data + x.view().size());
  };
  CHECK(normalised_error(values(found), values(expected)) < tolerance);

  tensor<float, 2> const Z = random_stream(110, 512);
  tensor<float, 2> H(512, 512), G(512, 512);
  H.fill(1.0F);
  G.fill(1.0F);
  CHECK(device.gram_update(0.5F, Z.view(), H.view()));
  host.gram_update(0.5F, Z.view(), G.view());
  CHECK(normalised_error(values(H), values(G)) < 1e-12);
  CHECK_FALSE(device.gram_update(1.0F, rows(Z.view(), 0, 3), H.view()));
  CHECK_FALSE(device.gemm(1.0F, X.view(), transposed(X.view()), 0.0F, rows(columns(H.view(), 0, 4), 0, 4)));
}

TEST_CASE("accelerator: large systems, solved and factored, and those that cannot be") {
  cuda::device_accelerator<bfloat16> device(nullptr);
  index_t const m = 512;
  // Tridiagonal: 2.5 and -1, definite with a condition of 9.
  tensor<float, 2> H(m, m), R(m, m), B = random_stream(m, 3), X = B.clone();
  H.fill(0.0F);
  for (index_t i = 0; i < m; ++i) {
    H(i, i) = 2.5F;
    if (i > 0) H(i, i - 1) = H(i - 1, i) = -1.0F;
  }
  CHECK(device.inverse_factor(H.view(), R.view()) == std::optional(true));
  tensor<float, 2> system = H.clone();
  CHECK(device.solve_positive_definite(system.view(), X.view()) == std::optional(true));
  double worst = 0;  // of H X = B
  for (index_t i = 0; i < m; ++i)
    for (index_t p = 0; p < 3; ++p) {
      double sum = 2.5 * static_cast<double>(X(i, p));
      if (i > 0) sum -= static_cast<double>(X(i - 1, p));
      if (i + 1 < m) sum -= static_cast<double>(X(i + 1, p));
      worst = std::max(worst, std::abs(sum - static_cast<double>(B(i, p))));
    }
  CHECK(worst < 1e-5);
  for (index_t i : {index_t{0}, index_t{1}, index_t{255}, m - 1})
    for (index_t j : {index_t{0}, index_t{256}, m - 1}) {
      double sum = 0;  // of R H Rᵀ = 1, as H⁻¹ = Rᵀ R
      for (index_t a = 0; a < m; ++a) {
        double inner = 2.5 * static_cast<double>(R(j, a));
        if (a > 0) inner -= static_cast<double>(R(j, a - 1));
        if (a + 1 < m) inner -= static_cast<double>(R(j, a + 1));
        sum += static_cast<double>(R(i, a)) * inner;
      }
      CHECK(sum == doctest::Approx(i == j ? 1.0 : 0.0).epsilon(1e-5));
      if (i > j) CHECK(R(i, j) == 0.0F);
    }
  H(7, 7) = -1.0F;
  CHECK(device.inverse_factor(H.view(), R.view()) == std::optional(false));
  CHECK(device.solve_positive_definite(H.view(), X.view()) == std::optional(false));
  tensor<float, 2> small(4, 4);
  CHECK_FALSE(device.inverse_factor(small.view(), small.view()).has_value());
  CHECK_FALSE(device.solve_positive_definite(small.view(), small.view()).has_value());
}

}  // namespace cuda_accelerator_test
