// budget: moe_front_kernel 128 registers, 1536 bytes
// budget: add_and_normalise 64 registers, 1536 bytes
// budget: route_logits 96 registers, 0 bytes
// budget: group_pairs 48 registers, 1024 bytes
// budget: embed_tokens 48 registers, 0 bytes
// budget: draw_tokens 64 registers, 2048 bytes
#include <slimtrim/cuda/embed.cuh>
#include <slimtrim/cuda/moe_front.cuh>
#include <slimtrim/cuda/sample.cuh>

using namespace slimtrim;

#define SLIMTRIM_INSTANCE(T)                                                                                         \
  template void cuda::moe_front<T>(cuda::context&, cuda::moe_layer_view<T> const&, device_matrix<float>,             \
                                   device_matrix<float const>, device_vector<float const>, double, device_matrix<T>, \
                                   cuda::moe_workspace<T> const&, unsigned*);                                        \
  template void cuda::add_and_normalise<T>(cuda::context&, device_matrix<float>, device_matrix<float const>,         \
                                           device_vector<float const>, double, device_matrix<T>);                    \
  template void cuda::embed<T>(cuda::context&, device_matrix<T const>, std::int32_t const*, device_matrix<float>);
SLIMTRIM_INSTANCE(bfloat16)
