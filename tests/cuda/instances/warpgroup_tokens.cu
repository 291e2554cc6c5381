// budget: warpgroup_tokens_kernel 255 registers, 0 bytes
// budget: order_columns 48 registers, 0 bytes
// budget: visit_elements 48 registers, 0 bytes
#include <slimtrim/cuda/warpgroup_tokens.cuh>

using namespace slimtrim;

static_assert(cuda::warpgroup_shape::shared_bytes <= 163 * 1024);
#define SLIMTRIM_INSTANCE(T, Kind)                                               \
  template void cuda::warpgroup_tokens_product<T, cuda::tile_kind::Kind, float>( \
      cuda::context&, cuda::tile_weight_view const&, device_matrix<T const>, device_matrix<float>);
SLIMTRIM_INSTANCE(bfloat16, codes4)
SLIMTRIM_INSTANCE(bfloat16, bfloat16)
SLIMTRIM_INSTANCE(float16, codes4)
