// budget: moe_few_gate_up 144 registers, 0 bytes
// budget: moe_few_down 144 registers, 1024 bytes
// budget: moe_warpgroup_gate_up 255 registers, 0 bytes
// budget: moe_warpgroup_down 255 registers, 0 bytes
// budget: order_columns 48 registers, 0 bytes
// budget: moe_many_gate_up 255 registers, 0 bytes
// budget: moe_many_down 255 registers, 0 bytes
// budget: route_activations 128 registers, 0 bytes
// budget: route_logits 96 registers, 0 bytes
// budget: group_pairs 48 registers, 1024 bytes
// budget: visit_elements 48 registers, 0 bytes
#include <slimtrim/cuda/moe_layer.cuh>

using namespace slimtrim;

#define SLIMTRIM_INSTANCE(T, Kind, Result)                                                           \
  template void cuda::moe_layer<T, cuda::tile_kind::Kind, Result>(                                   \
      cuda::context&, cuda::moe_layer_view<T> const&, device_matrix<T const>, device_matrix<Result>, \
      cuda::moe_workspace<T> const&, bool, cuda::moe_path);
SLIMTRIM_INSTANCE(bfloat16, codes4, float)
SLIMTRIM_INSTANCE(bfloat16, sparse4, float)
SLIMTRIM_INSTANCE(bfloat16, bfloat16, float)
