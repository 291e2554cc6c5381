// AWQ in Gram form, and the statistics of routing and outputs: seconds and shares of bandwidth.
#include "support.cuh"

#include <slimtrim/cuda/awq.cuh>
#include <slimtrim/cuda/expert_norms.cuh>

#include <chrono>

namespace cuda_bench {

void bench_awq(session& s) {
  index_t const hidden = s.size(4096), width = s.size(14336), tokens = s.size(8192);
  auto const gate = random_halves(s, width * hidden, 0.05F, 1), up = random_halves(s, width * hidden, 0.05F, 2);
  cuda::device_buffer<float> H(hidden * hidden);
  {
    auto const X = random_halves(s, tokens * hidden, 1, 11);
    cuda::check(cudaMemsetAsync(H.data(), 0, sizeof(float) * static_cast<std::size_t>(H.size()), s.stream), "zero");
    cuda::gram_update<bfloat16, float>(s.on(), 1.0F, reading(X, tokens, hidden), H.matrix(hidden, hidden));
    s.backend.synchronise();
  }
  auto const seconds_of = [&](char const* name, auto const& run) {
    auto const begin = std::chrono::steady_clock::now();
    run();
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    s.add({name, 1e6 * seconds, {}});
  };
  std::vector<cuda::awq_member<bfloat16>> const members{{reading(gate, width, hidden), reading(H, hidden, hidden)},
                                                        {reading(up, width, hidden), reading(H, hidden, hidden)}};
  for (auto const precision : {cuda::float_precision::single, cuda::float_precision::tensor_float})
    seconds_of(precision == cuda::float_precision::single ? "AWQ search, one expert's gate and up, float"
                                                          : "AWQ search, one expert's gate and up, TF32",
               [&] { static_cast<void>(cuda::search_awq_scales(s.on(), members, {}, {}, precision)); });
  seconds_of("AWQ clip and pack, one expert's gate",
             [&] { static_cast<void>(cuda::awq<bfloat16>(s.on(), members[0].weight, members[0].hessian)); });

  constexpr index_t experts = 8, slots = 2;
  cuda::device_buffer<float> outputs(tokens * slots * hidden), probabilities(tokens * experts), weights(tokens * slots);
  auto const fill = [&](cuda::device_buffer<float>& to) {
    auto const halves = random_halves(s, to.size(), 0.5F, 5, true);
    cuda::copy_elements<bfloat16, float>(s.on(), reading(halves, 1, to.size()), to.matrix(1, to.size()));
  };
  for (auto* one : {&outputs, &probabilities, &weights}) fill(*one);
  std::vector<std::int32_t> chosen;
  for (index_t t = 0; t < tokens; ++t)
    for (index_t k = 0; k < slots; ++k) chosen.push_back(static_cast<std::int32_t>((t * 7 + k * 3) % experts));
  cuda::device_buffer<std::int32_t> indices(tokens * slots), words(2 * experts + 2 + 2 * tokens * slots);
  cuda::copy_to_device(s.stream, chosen.data(), tokens * slots, indices.data());
  std::int32_t* const at = words.data();
  cuda::expert_groups const groups{at, at + experts + 1, at + experts + 1 + tokens * slots,
                                   at + experts + 1 + 2 * tokens * slots, at + 2 * experts + 1 + 2 * tokens * slots};
  cuda::group_pairs(s.on(), reading(indices, tokens, slots), experts, groups);
  cuda::device_routing const routing{reading(probabilities, tokens, experts), reading(indices, tokens, slots),
                                     reading(weights, tokens, slots)};
  cuda::router_accumulator router(s.on(), experts);
  cuda::expert_norm_accumulator norms(s.on(), experts);
  s.add({"router statistics of 8192 tokens", time_graph(s, 1, [&](int) { router.add(s.on(), routing); }), {}});
  double const time = time_graph(s, 1, [&](int) {
    norms.add(s.on(), routing, groups, reading(outputs, tokens * slots, hidden), cuda::output_weight::none);
  });
  s.add({"expert norms of 8192 tokens",
         time,
         {{"of bandwidth", s.bandwidth_share(4.0 * static_cast<double>(outputs.size()), time)}}});
  s.backend.synchronise();
}

}  // namespace cuda_bench
