// What is summed of a window's experts and tokens, from rows made up for the purpose: columns exactly, in the order of
// rows, as the host adds them.
#include "cuda/weights.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/model/observed_statistics.cuh>
#include <slimtrim/similarity/cosine.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace cuda_observed_statistics_test {

using namespace slimtrim;

TEST_CASE("observed_statistics: columns of experts, squares and weights, an expert without tokens") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const tokens = 5, slots = 2, experts = 4, hidden = 12, padded = 64, pairs = tokens * slots;
  // Token t holds experts t % 3 and (t + 1) % 3; the last slot of token 2 is unused, and expert 3 never chosen.
  tensor<std::int32_t, 2> indices(tokens, slots);
  tensor<float, 2> weights(tokens, slots), probabilities(tokens, experts);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) probabilities(t, e) = 0.125F * static_cast<float>(e + t + 1);
    for (index_t s = 0; s < slots; ++s) {
      indices(t, s) = t == 2 && s == 1 ? -1 : static_cast<std::int32_t>((t + s) % 3);
      weights(t, s) = 0.25F + 0.5F * static_cast<float>(s) + 0.01F * static_cast<float>(t);
    }
  }
  cuda::moe_workspace<bfloat16> const room(on, tokens, slots, experts, padded, padded);
  auto const on_device = as_const(device.upload_matrix<std::int32_t>(indices));
  cuda::group_pairs(on, on_device, experts, room.groups());
  tensor<float, 2> routed(pairs, padded);
  auto const inner = cuda_tests::random_halves(pairs, 128, 4);
  for (index_t i = 0; i < pairs * padded; ++i)
    routed.view().data[i] = static_cast<float>(normal_at(4, 5, static_cast<std::uint64_t>(i)));
  cuda::copy_to_device(on.stream(), routed.view().data, pairs * padded, room.routed.data());
  cuda::moe_layer_view<bfloat16> view{};
  view.experts = experts;
  view.hidden = padded;
  view.width = padded;
  std::vector<bfloat16> narrow;
  for (index_t i = 0; i < pairs; ++i)
    for (index_t k = 0; k < padded; ++k) narrow.push_back(inner(i, k));
  cuda::copy_to_device(on.stream(), narrow.data(), pairs * padded, room.activations.data());
  std::vector<double> const change(static_cast<std::size_t>(tokens), 0.5);
  layer_sums sums;
  index_t const neurons = 20;
  cuda::sum_experts<bfloat16>(
      on, {as_const(device.upload_matrix<float>(probabilities)), on_device, as_const(device.upload_matrix<float>(weights))},
      view, room, device_vector<double const>(device.keep<double>(change.data(), tokens), tokens),
      {.experts = experts, .hidden = hidden, .intermediate = neurons, .outputs = true, .neurons = true}, sums);
  auto const order = device.download<std::int32_t>(device_vector<std::int32_t>(room.groups().pairs, pairs));
  auto const offsets = device.download<std::int32_t>(device_vector<std::int32_t>(room.groups().offsets, experts + 1));
  REQUIRE(sums.outputs);
  REQUIRE(sums.neurons);
  CHECK(sums.router->count == std::vector<double>{2, 4, 3, 0});
  for (index_t e = 0; e < experts; ++e) {
    auto const at = static_cast<std::size_t>(e);
    double norms = 0;
    for (index_t c = 0; c < hidden; ++c) {
      double sum = 0, square = 0;
      for (std::int32_t i = offsets[at]; i < offsets[at + 1]; ++i) {
        sum += static_cast<double>(routed(i, c));
        square += static_cast<double>(routed(i, c)) * static_cast<double>(routed(i, c));
      }
      CHECK(sums.outputs->sum[at * static_cast<std::size_t>(hidden) + static_cast<std::size_t>(c)] == sum);
      CHECK(sums.outputs->square[at * static_cast<std::size_t>(hidden) + static_cast<std::size_t>(c)] == square);
      norms += square;
    }
    for (index_t k = 0; k < neurons; ++k) {
      double plain = 0, weighted = 0;
      for (std::int32_t i = offsets[at]; i < offsets[at + 1]; ++i) {
        std::int32_t const pair = order[static_cast<std::size_t>(i)];
        double const h = static_cast<double>(static_cast<float>(inner(i, k))),
                     g = static_cast<double>(weights(pair / slots, pair % slots));
        plain += h * h;
        weighted += g * g * (h * h);
      }
      CHECK(sums.neurons->plain[at * static_cast<std::size_t>(neurons) + static_cast<std::size_t>(k)] == plain);
      CHECK(sums.neurons->weighted[at * static_cast<std::size_t>(neurons) + static_cast<std::size_t>(k)] == weighted);
    }
    // |f|² over the model's columns alone; norms are floats once.
    CHECK(sums.norms->square[at] == doctest::Approx(norms).epsilon(1e-6));
    CHECK(sums.norms->change_weighted[at] == doctest::Approx(0.5 * sums.norms->weighted[at]).epsilon(1e-12));
  }
}

TEST_CASE("observed_statistics: cosines and norms of tokens, a row of zeros among them") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const n = 7, hidden = 40;
  std::vector<tensor<float, 2>> host;
  std::vector<device_matrix<float const>> there;
  for (std::uint64_t m = 0; m < 5; ++m) {
    tensor<float, 2> x(n, hidden);
    for (index_t i = 0; i < n * hidden; ++i)
      x.view().data[i] = m == 3 && i < hidden ? 0.0F : static_cast<float>(normal_at(9, m, static_cast<std::uint64_t>(i)));
    there.push_back(as_const(device.upload_matrix<float>(x)));
    host.push_back(std::move(x));
  }
  similarity_values found;
  auto* const change = device.keep<double>(nullptr, n);
  cuda::compare_rows(on, there[0], there[1], there[2], there[3], there[4], change, found);
  auto const one_less = device.download<double>(device_vector<double>(change, n));
  auto const cosine = [&](std::size_t a, std::size_t b, index_t t) {
    return static_cast<double>(cosine_similarity(reference_backend{}, row(as_const(host[a].view()), t), row(as_const(host[b].view()), t)));
  };
  for (index_t t = 0; t < n; ++t) {
    auto const at = static_cast<std::size_t>(t);
    CHECK(static_cast<double>(found.block[at]) == doctest::Approx(cosine(0, 4, t)).epsilon(1e-5));
    CHECK(static_cast<double>(found.attention[at]) == doctest::Approx(cosine(0, 1, t)).epsilon(1e-5));
    CHECK(static_cast<double>(found.moe_without_norm[at]) == doctest::Approx(cosine(2, 3, t)).epsilon(1e-5));
    CHECK(static_cast<double>(found.moe[at]) == doctest::Approx(cosine(1, 4, t)).epsilon(1e-5));
    CHECK(one_less[at] == 1.0 - static_cast<double>(found.moe[at]));
    double residual = 0, output = 0;
    for (index_t j = 0; j < hidden; ++j) {
      residual += static_cast<double>(host[1](t, j)) * static_cast<double>(host[1](t, j));
      output += static_cast<double>(host[3](t, j)) * static_cast<double>(host[3](t, j));
    }
    CHECK(static_cast<double>(found.residual_square[at]) == doctest::Approx(residual).epsilon(1e-6));
    CHECK(static_cast<double>(found.moe_output_square[at]) == doctest::Approx(output).epsilon(1e-6));
  }
  CHECK(found.moe_without_norm[0] == 0.0F);
}

}  // namespace cuda_observed_statistics_test
