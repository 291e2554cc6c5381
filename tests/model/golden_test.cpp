// The bundled model against numbers of an independent float32 implementation (golden.json; README.txt of the data).
//
// Tolerance: golden.json states how far its own float32 pass is from float64, 7.2e-6 at the worst logit. Ours is
// another float32 pass with sums in another order, so the two may differ by the sum of both errors; 3e-5 is twice that.
// Values derived from logits or states by means of norm at most one get the same bound, scaled where they are larger
// than one.
#include <model/support.hpp>

#include <slimtrim/model/kv_cache.hpp>

#include <doctest/doctest.h>

#include <array>

namespace model_golden_test {

using namespace slimtrim_tests;

namespace {

constexpr double tolerance = 3e-5;

struct golden_observer {
  model_config const& config;
  std::vector<tensor<float, 2>> before, middle, after, probabilities, weights, logits;
  std::vector<tensor<std::int32_t, 2>> indices;

  template <class T>
  static tensor<T, 2> keep(matrix_view<T const> x) {
    tensor<T, 2> copy(x.extent(0), x.extent(1));
    for (index_t i = 0; i < x.extent(0); ++i)
      for (index_t j = 0; j < x.extent(1); ++j) copy(i, j) = x(i, j);
    return copy;
  }
  void block_input(index_t, matrix_view<float const> X) { before.push_back(keep(X)); }
  void attention_residual(index_t, matrix_view<float const> X) { middle.push_back(keep(X)); }
  void block_output(index_t, matrix_view<float const> X) { after.push_back(keep(X)); }
  void router_result(index_t, routing_result r) {
    logits.push_back(keep(r.logits));
    probabilities.push_back(keep(r.probabilities));
    weights.push_back(keep(r.weights));
    indices.push_back(keep(r.indices));
  }
};

double mean_cosine(tensor<float, 2> const& a, tensor<float, 2> const& b) {
  double sum = 0;
  for (index_t t = 0; t < a.extent(0); ++t) {
    double dot = 0, aa = 0, bb = 0;
    for (index_t j = 0; j < a.extent(1); ++j) {
      double const x = static_cast<double>(a(t, j)), y = static_cast<double>(b(t, j));
      dot += x * y;
      aa += x * x;
      bb += y * y;
    }
    sum += dot / std::sqrt(aa * bb);
  }
  return sum / static_cast<double>(a.extent(0));
}

struct golden_pass {
  golden_observer seen{tiny_mixtral().config, {}, {}, {}, {}, {}, {}, {}};
  tensor<float, 2> logits;
};

golden_pass const& input64_pass() {
  static golden_pass const pass = [] {
    golden_pass p;
    model const& m = tiny_mixtral();
    auto const ids = input64();
    forward_workspace work;
    eigen_backend const backend;
    tensor<float, 2> states(64, m.config.hidden);
    p.logits = tensor<float, 2>(64, m.config.vocabulary);
    forward(backend, m, ids, states.view(), work, p.seen);
    final_logits(backend, m.config, m.ends, states.view(), p.logits.view(), work);
    return p;
  }();
  return pass;
}

}  // namespace

TEST_CASE("input64: logits and likelihoods") {
  auto const& golden = tiny_mixtral_golden().at("input64");
  auto const& logits = input64_pass().logits;
  auto const last = golden.at("logits_last_position").get<std::vector<double>>();
  double worst = 0;
  index_t best = 0;
  for (index_t i = 0; i < 2048; ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(logits(63, i)) - last[static_cast<std::size_t>(i)]));
    if (logits(63, i) > logits(63, best)) best = i;
  }
  CHECK(worst < tolerance);
  CHECK(best == golden.at("argmax_last").get<index_t>());

  auto const ids = input64();
  auto const nll = golden.at("nll_per_target").get<std::vector<double>>();
  double sum = 0;
  for (index_t t = 0; t < 63; ++t) {
    double const found = negative_log_likelihood(row(as_const(logits.view()), t), ids[static_cast<std::size_t>(t) + 1]);
    CHECK(std::abs(found - nll[static_cast<std::size_t>(t)]) < tolerance);
    sum += found;
  }
  CHECK(std::abs(sum / 63 - golden.at("mean_nll_63_targets").get<double>()) < tolerance);

  double total = 0, squares = 0;
  for (index_t t = 0; t < 64; ++t)
    for (index_t i = 0; i < 2048; ++i) {
      double const value = static_cast<double>(logits(t, i));
      total += value;
      squares += value * value;
    }
  // 131072 logits of size about 4: relative errors of 1e-6 each.
  CHECK(total == doctest::Approx(golden.at("logits_checksum_sum").get<double>()).epsilon(2e-6));
  CHECK(squares == doctest::Approx(golden.at("logits_checksum_sumsq").get<double>()).epsilon(2e-6));
}

TEST_CASE("input64: likelihoods token by token from every kind of cache") {
  auto const& golden = tiny_mixtral_golden().at("input64");
  model const& m = tiny_mixtral();
  auto const ids = input64();
  double const expected = golden.at("mean_nll_63_targets").get<double>();
  struct kept {
    kv_precision precision;
    double within;
  };
  // Keys and values are rounded to 2^-11 of themselves, or to 2^-8 of the largest of their head, in eight layers; the
  // mean of 63 likelihoods moves by a small part of that. A near-tie of the router may flip one token's experts, a
  // hundredth of a nat.
  for (kept const& each :
       {kept{kv_precision::floating, tolerance}, kept{kv_precision::float16, 5e-4}, kept{kv_precision::int8, 5e-3}}) {
    kv_cache cache(m.config, 64, each.precision);
    forward_workspace work;
    tensor<float, 2> state(1, m.config.hidden), logits(1, m.config.vocabulary);
    double sum = 0;
    for (index_t t = 0; t < 63; ++t) {
      token_sequence const part[1] = {{1, t, &cache}};
      forward(eigen_backend(), m, std::span(ids).subspan(static_cast<std::size_t>(t), 1),
              std::span<token_sequence const>(part), state.view(), work);
      final_logits(eigen_backend(), m.config, m.ends, state.view(), logits.view(), work);
      sum += negative_log_likelihood(row(as_const(logits.view()), 0), ids[static_cast<std::size_t>(t) + 1]);
    }
    MESSAGE("off by ", std::abs(sum / 63 - expected));
    CHECK(std::abs(sum / 63 - expected) < each.within);
  }
}

TEST_CASE("input64: residual stream and similarities") {
  auto const& golden = tiny_mixtral_golden().at("input64");
  auto const& seen = input64_pass().seen;
  auto const hidden = golden.at("hidden_last_position").get<std::vector<std::vector<double>>>();
  REQUIRE(seen.after.size() == 8);
  for (std::size_t i = 0; i <= 8; ++i) {
    auto const& states = i < 8 ? seen.before[i] : seen.after[7];
    double norm = 0, worst = 0;
    for (index_t j = 0; j < 128; ++j) {
      double const expected = hidden[i][static_cast<std::size_t>(j)];
      norm += expected * expected;
      worst = std::max(worst, std::abs(static_cast<double>(states(63, j)) - expected));
    }
    CHECK(worst < tolerance * std::max(1.0, std::sqrt(norm / 128)));
  }
  for (std::size_t i = 0; i < 8; ++i) {
    CAPTURE(i);
    CHECK(std::abs(mean_cosine(seen.before[i], seen.after[i]) - golden.at("cosine_block")[i].get<double>()) <
          tolerance);
    CHECK(std::abs(mean_cosine(seen.before[i], seen.middle[i]) - golden.at("cosine_attn_sublayer")[i].get<double>()) <
          tolerance);
    CHECK(std::abs(mean_cosine(seen.middle[i], seen.after[i]) - golden.at("cosine_moe_sublayer")[i].get<double>()) <
          tolerance);
  }
}

TEST_CASE("input64: the router's choices are exact, its weights within tolerance") {
  auto const& golden = tiny_mixtral_golden().at("input64");
  auto const& seen = input64_pass().seen;
  for (std::size_t layer = 0; layer < 8; ++layer) {
    CAPTURE(layer);
    auto const& first = golden.at("top2_first8")[layer];
    for (index_t t = 0; t < 8; ++t) {
      auto const at = static_cast<std::size_t>(t);
      for (index_t slot = 0; slot < 2; ++slot) {
        auto const s = static_cast<std::size_t>(slot);
        CHECK(seen.indices[layer](t, slot) == first.at("experts")[at][s].get<std::int32_t>());
        CHECK(std::abs(static_cast<double>(seen.weights[layer](t, slot)) - first.at("weights")[at][s].get<double>()) <
              tolerance);
      }
      for (index_t e = 0; e < 8; ++e)
        CHECK(std::abs(static_cast<double>(seen.logits[layer](t, e)) -
                       first.at("router_logits")[at][static_cast<std::size_t>(e)].get<double>()) < tolerance);
    }
    std::array<double, 8> weight{}, probability{};
    std::array<int, 8> count{};
    for (index_t t = 0; t < 64; ++t) {
      for (index_t slot = 0; slot < 2; ++slot) {
        auto const e = static_cast<std::size_t>(seen.indices[layer](t, slot));
        weight[e] += static_cast<double>(seen.weights[layer](t, slot)) / 64;
        ++count[e];
      }
      for (index_t e = 0; e < 8; ++e)
        probability[static_cast<std::size_t>(e)] += static_cast<double>(seen.probabilities[layer](t, e)) / 64;
    }
    for (std::size_t e = 0; e < 8; ++e) {
      CHECK(count[e] == golden.at("expert_token_count")[layer][e].get<int>());
      CHECK(std::abs(weight[e] - golden.at("mean_router_weight")[layer][e].get<double>()) < tolerance);
      CHECK(std::abs(probability[e] - golden.at("mean_router_prob")[layer][e].get<double>()) < tolerance);
    }
  }
}

}  // namespace model_golden_test
