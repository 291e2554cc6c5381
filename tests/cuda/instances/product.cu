// budget: pack_tile_lanes 96 registers, 0 bytes
// budget: expand_tile_lanes 64 registers, 0 bytes
// budget: visit_elements 48 registers, 0 bytes
#include <slimtrim/cuda/product.cuh>

using namespace slimtrim;

#define SLIMTRIM_INSTANCE(T, Kind)                                                                          \
  template void cuda::expand_tiles<T, cuda::tile_kind::Kind>(cuda::context&, cuda::tile_weight_view const&, \
                                                             device_matrix<T>);
SLIMTRIM_INSTANCE(bfloat16, codes4)
SLIMTRIM_INSTANCE(bfloat16, sparse4)
SLIMTRIM_INSTANCE(bfloat16, bfloat16)
SLIMTRIM_INSTANCE(float16, codes4)

#define SLIMTRIM_PACK(...)                                                                                            \
  template void cuda::pack_tiles_on_device<__VA_ARGS__>(cuda::context&, __VA_ARGS__ const&,                           \
                                                        cuda::tile_weight_view const&, cuda::words4*, std::uint16_t*, \
                                                        std::uint8_t*);
using codes = cuda::code_rows<space::device>;
using halves = cuda::half_rows<bfloat16, space::device>;
using sparse = cuda::sparse_rows<space::device>;
SLIMTRIM_PACK(codes)
SLIMTRIM_PACK(halves)
SLIMTRIM_PACK(sparse)
SLIMTRIM_PACK(cuda::fused_rows<codes>)
SLIMTRIM_PACK(cuda::fused_rows<halves>)
SLIMTRIM_PACK(cuda::fused_rows<sparse>)
