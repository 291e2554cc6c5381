// budget: sum_routing 64 registers, 1024 bytes
// budget: norms_of_pairs 40 registers, 0 bytes
// budget: sum_expert_norms 72 registers, 1024 bytes
// budget: group_pairs 48 registers, 1024 bytes
#include <slimtrim/cuda/expert_norms.cuh>
#include <slimtrim/cuda/router_statistics.cuh>

using namespace slimtrim;

void use_statistics(cuda::context& on, cuda::router_accumulator& router, cuda::expert_norm_accumulator& norms,
                    cuda::device_routing const& routing) {
  router.add(on, routing);
  norms.add(on, routing, {}, {}, cuda::output_weight::applied);
}
