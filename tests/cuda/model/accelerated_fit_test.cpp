// Down matrices fitted expert by expert on the device against the host's sweeps on features that are written out.
//
// Features are rounded to bfloat16 twice, as the host's are here, but a sum in another order may round the other way: 2^-8 of some
// elements. Ridges keep the condition of the systems below a hundred.
#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/accelerator.cuh>
#include <slimtrim/recovery/expert_fit.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

namespace cuda_accelerated_fit_test {

using namespace slimtrim;
using namespace cuda_tests;

namespace {

constexpr double tolerance = 1e-2;

float rounded(double x) { return static_cast<float>(bfloat16(static_cast<float>(x))); }

matrix<float> random_rows(index_t rows, index_t columns, std::uint64_t seed) {
  matrix<float> x(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i)
    x.view().data[i] = static_cast<float>(normal_at(seed, 4, static_cast<std::uint64_t>(i)));
  return x;
}

// factor * silu(gate n) * (up n) of a row x, n and the product rounded as the device does.
void write_features(model_config const& config, decoder_layer const& layer, swiglu_weights const& swiglu, matrix_view<float const> X,
                    index_t token, float factor, vector_view<float> z) {
  double squares = 0;
  for (index_t j = 0; j < config.hidden; ++j) squares += static_cast<double>(X(token, j)) * static_cast<double>(X(token, j));
  double const scale = 1 / std::sqrt(squares / static_cast<double>(config.hidden) + config.rms_epsilon);
  auto const gate = expand(swiglu.gate.view), up = expand(swiglu.up.view);
  for (index_t i = 0; i < z.extent(0); ++i) {
    double g = 0, u = 0;
    for (index_t j = 0; j < config.hidden; ++j) {
      double const n = static_cast<double>(rounded(static_cast<double>(X(token, j)) * scale * static_cast<double>(layer.feed_forward_norm[static_cast<std::size_t>(j)])));
      g += n * static_cast<double>(gate(i, j));
      u += n * static_cast<double>(up(i, j));
    }
    z(i) = factor * rounded(g / (1 + std::exp(-g)) * u);
  }
}

double distance(matrix_view<float const> found, matrix_view<float const> expected) {
  double error = 0, size = 1e-30;
  for (index_t i = 0; i < expected.extent(0); ++i)
    for (index_t j = 0; j < expected.extent(1); ++j) {
      double const e = static_cast<double>(expected(i, j)), d = static_cast<double>(found(i, j)) - e;
      error += d * d;
      size += e * e;
    }
  return std::sqrt(error / size);
}

struct plain_writer {
  index_t expert;
  std::vector<std::int32_t> tokens;
  std::vector<float> factors;
  matrix<float> on_host, on_device, before;
};

void check(model_config const& config, index_t which, random_weights::choice packed, random_weights::choice novice, bool judged) {
  random_weights const source(config, packed, novice);
  decoder_layer const layer = load_layer(config, source, which);
  index_t const tokens = 150, hidden = config.hidden;
  auto const X = random_rows(tokens, hidden, 21);
  matrix<float> residual = random_rows(tokens, hidden, 22);

  std::vector<plain_writer> writers;
  auto const add = [&](index_t expert, swiglu_weights const& swiglu) {
    plain_writer writer{expert, {}, {}, expand(swiglu.down.view), expand(swiglu.down.view), expand(swiglu.down.view)};
    for (index_t t = 0; t < tokens; ++t) {
      // Expert 2 is reached by nobody, others by a part.
      if (expert == 2 || (expert >= 0 && (t + expert) % 3 == 0)) continue;
      writer.tokens.push_back(static_cast<std::int32_t>(t));
      writer.factors.push_back(0.25F + 0.5F * static_cast<float>(uniform_at(23, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(expert + 1))));
    }
    writers.push_back(std::move(writer));
  };
  if (layer.moe)
    for (std::size_t e = 0; e < layer.moe->experts.size(); ++e)
      if (!layer.moe->experts[e].is_novice()) add(static_cast<index_t>(e), layer.moe->experts[e].swiglu);
  if (layer.moe && layer.moe->shared) add(-1, *layer.moe->shared);
  if (layer.dense) add(-1, *layer.dense);

  std::vector<char> held_out(static_cast<std::size_t>(tokens), 0);
  for (std::size_t t = 3; judged && t < held_out.size(); t += 4) held_out[t] = 1;
  std::vector<matrix<float>> features;
  double squares = 0;
  index_t width = 0;
  for (plain_writer const& writer : writers) {
    swiglu_weights const& swiglu = writer.expert >= 0 ? layer.moe->experts[static_cast<std::size_t>(writer.expert)].swiglu
                                                      : (layer.dense ? *layer.dense : *layer.moe->shared);
    matrix<float> Z(static_cast<index_t>(writer.tokens.size()), swiglu.width());
    for (std::size_t i = 0; i < writer.tokens.size(); ++i) {
      auto const z = row(Z.view(), static_cast<index_t>(i));
      write_features(config, layer, swiglu, X.view(), writer.tokens[i], writer.factors[i], z);
      for (index_t j = 0; j < z.extent(0); ++j) squares += static_cast<double>(z(j)) * static_cast<double>(z(j));
    }
    width += swiglu.width();
    features.push_back(std::move(Z));
  }
  // Something that the experts can find: a linear function of their features.
  for (std::size_t k = 0; k < writers.size(); ++k) {
    auto const wanted = random_rows(hidden, features[k].extent(1), 30 + k);
    for (index_t i = 0; i < features[k].extent(0); ++i)
      for (index_t j = 0; j < hidden; ++j)
        for (index_t c = 0; c < features[k].extent(1); ++c)
          residual(writers[k].tokens[static_cast<std::size_t>(i)], j) += features[k](i, c) * wanted(j, c);
  }

  std::vector<expert_features> plain;
  std::vector<fitted_writer> all;
  for (std::size_t k = 0; k < writers.size(); ++k) {
    plain.push_back({writers[k].tokens, writers[k].on_host.view(), stored_features(features[k].view())});
    all.push_back({writers[k].expert, writers[k].tokens, writers[k].factors, writers[k].on_device.view()});
  }
  matrix<float> left = residual.clone(), found = residual.clone();
  std::span<char const> const marks = judged ? std::span<char const>(held_out) : std::span<char const>();
  expert_fit_options options{.fit = {.ridges = {0.1, 1.0}}, .sweeps = 3, .rows_a_batch = 64};
  cuda::device_accelerator<bfloat16> device(nullptr);
  REQUIRE(device.fits_experts(layer));
  auto const reports = device.fit_experts(config, layer, X.view(), all, found.view(), marks, options);
  options.fit.unit = squares / static_cast<double>(width);
  auto const expected = residual_fit_experts(reference_backend{}, plain, left.view(), marks, options);

  REQUIRE(reports.size() == expected.size());
  CHECK(distance(found.view(), residual.view()) > 0.2);
  CHECK(distance(found.view(), left.view()) < tolerance);
  bool changed = false;
  for (std::size_t k = 0; k < writers.size(); ++k) {
    CAPTURE(writers[k].expert);
    CHECK(reports[k].changed == expected[k].changed);
    CHECK(reports[k].ridge == expected[k].ridge);
    CHECK(reports[k].error == doctest::Approx(expected[k].error).epsilon(tolerance));
    CHECK(reports[k].held_out_error == doctest::Approx(expected[k].held_out_error).epsilon(tolerance));
    CHECK(distance(writers[k].on_device.view(), writers[k].on_host.view()) < tolerance);
    bool const moved = distance(writers[k].on_device.view(), writers[k].before.view()) > 0;
    CHECK(moved == reports[k].changed);
    if (writers[k].expert == 2) CHECK_FALSE(moved);
    changed = changed || moved;
  }
  CHECK(changed);
}

bool nothing(module_id) { return false; }
bool inputs_packed(module_id id) { return id.role == module_role::gate || id.role == module_role::up || id.role == module_role::down; }
bool one_novice(module_id id) { return id.expert == 1; }

}  // namespace

TEST_CASE("accelerated_fit: experts of Mixtral, one constant, one that no token reaches, packed ones and padded ones") {
  check(small_config(mixtral_family, 64, 1), 0, nothing, one_novice, true);
  check(small_config(mixtral_family, 64, 1), 0, inputs_packed, nullptr, true);
  check(trimmed_mixtral(72), 3, nothing, nullptr, false);
}

TEST_CASE("accelerated_fit: shared experts and dense layers") {
  check(small_deepseek(64), 1, nothing, nullptr, true);
  check(small_deepseek(64), 0, nothing, nullptr, true);
}

TEST_CASE("accelerated_fit: what it does not take") {
  model_config const config = small_config(mixtral_family, 64, 1);
  random_weights const source(config, nothing, nullptr);
  decoder_layer layer = load_layer(config, source, 0);
  cuda::device_accelerator<bfloat16> device(nullptr);
  auto const X = random_rows(4, 64, 1);
  matrix<float> residual = random_rows(4, 64, 2), weight(64, 64);
  std::vector<std::int32_t> const outside{4};
  std::vector<float> const factors{1.0F};
  std::vector<fitted_writer> const writers{{0, outside, factors, weight.view()}};
  CHECK_THROWS_AS((void)device.fit_experts(config, layer, X.view(), writers, residual.view(), {}, {}), error);
  layer.moe->rule.weight_scales_input = true;
  CHECK_FALSE(device.fits_experts(layer));
}

}  // namespace cuda_accelerated_fit_test
