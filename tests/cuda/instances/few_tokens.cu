// budget: few_tokens_kernel 208 registers, 0 bytes
#include <slimtrim/cuda/few_tokens.cuh>

using namespace slimtrim;

#define SLIMTRIM_INSTANCE(T, Kind)                                         \
  template void cuda::few_tokens_product<T, cuda::tile_kind::Kind, float>( \
      cuda::context&, cuda::tile_weight_view const&, device_matrix<T const>, device_matrix<float>);
SLIMTRIM_INSTANCE(bfloat16, codes4)
SLIMTRIM_INSTANCE(bfloat16, sparse4)
SLIMTRIM_INSTANCE(bfloat16, bfloat16)
SLIMTRIM_INSTANCE(float16, codes4)
SLIMTRIM_INSTANCE(float16, sparse4)
SLIMTRIM_INSTANCE(float16, float16)
