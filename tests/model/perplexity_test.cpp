// Perplexity of the bundled model on shared validation tokens, whole, with every layer and block dropped in turn, and
// with quantised experts, against golden.json. 0.02 % is the bound of the data's README: two float32 passes agree to
// about 1e-4 relative unless a near-tie in the router flips.
#include <model/support.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace model_perplexity_test {

using namespace slimtrim_tests;

namespace {

constexpr index_t windows = 16, length = 256;

// Instrumented builds look for faults, not for numbers: a part of the variants reaches the same code.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool every_variant = false;
#else
constexpr bool every_variant = true;
#endif

/// The residual streams of all windows.
using streams = tensor<float, 2>;

/// -log softmax(logits)[target] with the library's float exponential (3e-7 relative), a quarter of a billion times.
double fast_likelihood(vector_view<float const> logits, std::uint32_t target) {
  float largest = logits(0);
  for (index_t i = 1; i < logits.extent(0); ++i) largest = std::max(largest, logits.data[i]);
  double sum = 0;
  for (index_t i = 0; i < logits.extent(0); ++i) sum += static_cast<double>(exp_float(logits.data[i] - largest));
  return std::log(sum) + static_cast<double>(largest) - static_cast<double>(logits(static_cast<index_t>(target)));
}

struct likelihood {
  double all = 0;     ///< 256 targets a window, the last from the next window
  double within = 0;  ///< 255 targets a window
};

struct evaluation {
  std::vector<std::uint32_t> ids;
  thread_pool pool{2};
  eigen_backend serial{};

  template <class Step>
  void each_window(streams& states, Step&& step) {
    pool.run(windows, [&](index_t w) {
      forward_workspace work;
      step(w, rows(states.view(), w * length, length), work);
    });
  }

  void layer(model const& m, decoder_layer const& weights, index_t at, streams& states) {
    each_window(states, [&](index_t, matrix_view<float> X, forward_workspace& work) {
      forward_layer(serial, m.config, weights, at, X, work);
    });
  }

  streams embedded(model const& m) {
    streams states(windows * length, m.config.hidden);
    each_window(states, [&](index_t w, matrix_view<float> X, forward_workspace&) {
      embed(m.ends, std::span(ids).subspan(static_cast<std::size_t>(w * length), length), X);
    });
    return states;
  }

  likelihood finish(model const& m, streams& states, index_t from) {
    for (index_t i = from; i < m.config.layer_count(); ++i) layer(m, m.layers[static_cast<std::size_t>(i)], i, states);
    std::array<likelihood, windows> sums{};
    each_window(states, [&](index_t w, matrix_view<float> X, forward_workspace& work) {
      tensor<float, 2> logits(length, m.config.vocabulary);
      final_logits(serial, m.config, m.ends, X, logits.view(), work);
      likelihood& sum = sums[static_cast<std::size_t>(w)];
      for (index_t t = 0; t < length; ++t) {
        auto const target = ids[static_cast<std::size_t>(w * length + t) + 1];
        double const nll = fast_likelihood(row(as_const(logits.view()), t), target);
        sum.all += nll;
        if (t + 1 < length) sum.within += nll;
      }
    });
    likelihood mean;
    for (likelihood const& each : sums) {
      mean.all += each.all / (windows * length);
      mean.within += each.within / (windows * (length - 1));
    }
    return mean;
  }
};

void check(likelihood const& found, ordered_json const& golden) {
  CHECK(std::exp(found.all) == doctest::Approx(golden.at("ppl").get<double>()).epsilon(2e-4));
  CHECK(std::exp(found.within) == doctest::Approx(golden.at("ppl_within_window").get<double>()).epsilon(2e-4));
}

evaluation* shared_tokens() {
  static evaluation run;
  if (run.ids.empty()) run.ids = read_u16(std::filesystem::path(SLIMTRIM_SHARED_DATA) / "wikitext-2" / "valid.u16");
  if (run.ids.size() > windows * length) return &run;
  MESSAGE("the shared tokens are not there: skipped");
  return nullptr;
}

/// Codes, scales and the view of a matrix rounded to nearest: s = max|w| / (2^(bits-1) - 1) for groups of 128 inputs.
struct rounded_matrix {
  std::vector<std::uint32_t> words;
  tensor<float, 2> scales;
  quantized_view<> view;
};

weight round_to_nearest(weight const& original, int bits) {
  index_t const out = original.rows(), in = original.columns(), group = 128;
  auto const dense = expand(original.view);
  auto held = std::make_shared<rounded_matrix>();
  index_t const words = packed_words(in, bits);
  held->words.assign(static_cast<std::size_t>(out * words) + 1, 0);
  held->scales = tensor<float, 2>(out, in / group);
  float const top = static_cast<float>((1 << (bits - 1)) - 1);
  for (index_t r = 0; r < out; ++r)
    for (index_t g = 0; g < in / group; ++g) {
      float largest = 0;
      for (index_t c = g * group; c < (g + 1) * group; ++c) largest = std::max(largest, std::abs(dense(r, c)));
      float const scale = largest / top;
      held->scales(r, g) = scale;
      for (index_t c = g * group; c < (g + 1) * group; ++c) {
        float const q = std::clamp(std::nearbyint(dense(r, c) / scale), -top - 1, top);
        auto const code = static_cast<std::uint64_t>(static_cast<int>(q) + (1 << (bits - 1)));
        index_t const bit = c * bits;
        auto const at = static_cast<std::size_t>(r * words + bit / 32);
        std::uint64_t const shifted = code << (bit % 32);
        held->words[at] |= static_cast<std::uint32_t>(shifted);
        if ((shifted >> 32) != 0) held->words[at + 1] |= static_cast<std::uint32_t>(shifted >> 32);
      }
    }
  held->view.rows = out;
  held->view.columns = in;
  held->view.bits = bits;
  held->view.words = held->words.data();
  held->view.words_per_row = words;
  held->view.block_columns = group;
  held->view.scales = held->scales.view();
  weight result;
  result.view = held->view;
  result.storage = std::move(held);
  return result;
}

}  // namespace

TEST_CASE("the whole model, and every layer and block dropped in turn") {
  evaluation* const run = shared_tokens();
  if (run == nullptr) return;
  model const& m = tiny_mixtral();
  auto const& golden = tiny_mixtral_golden().at("valid_16x256");
  streams states = run->embedded(m);
  for (index_t i = 0; i < 8; ++i) {
    CAPTURE(i);
    auto const at = static_cast<std::size_t>(i);
    if (!every_variant && i != 6) {
      run->layer(m, m.layers[at], i, states);
      continue;
    }
    // What precedes layer i is the whole model's, so each variant starts from here.
    decoder_layer without_moe = m.layers[at], without_attention = m.layers[at];
    without_moe.moe.reset();
    without_attention.attention.reset();
    streams variant = states.clone();
    run->layer(m, without_moe, i, variant);
    check(run->finish(m, variant, i + 1), golden.at("drop_moe")[at]);
    variant = states.clone();
    run->layer(m, without_attention, i, variant);
    check(run->finish(m, variant, i + 1), golden.at("drop_attn")[at]);
    variant = states.clone();
    check(run->finish(m, variant, i + 1), golden.at("drop_block")[at]);
    run->layer(m, m.layers[at], i, states);
  }
  check(run->finish(m, states, 8), golden.at("full"));
}

TEST_CASE("quantised experts run packed through the same forward pass") {
  evaluation* const run = shared_tokens();
  if (run == nullptr) return;
  auto const& golden = tiny_mixtral_golden().at("valid_16x256").at("rtn");
  for (int const bits : {8, 4, 3, 2}) {
    CAPTURE(bits);
    if (!every_variant && bits != 3) continue;
    model const& original = tiny_mixtral();
    model rounded{original.config, original.ends, original.layers};
    for (decoder_layer& layer : rounded.layers)
      for (expert_weights& expert : layer.moe->experts)
        for (weight* const each : {&expert.swiglu.gate, &expert.swiglu.up, &expert.swiglu.down})
          *each = round_to_nearest(*each, bits);
    streams states = run->embedded(rounded);
    check(run->finish(rounded, states, 0), golden.at("w" + std::to_string(bits) + "g128_experts"));
  }
}

}  // namespace model_perplexity_test
