// budget: attention_few_kernel 96 registers, 2560 bytes
// budget: attention_many_kernel 232 registers, 0 bytes
// budget: rotate_and_append 64 registers, 0 bytes
#include <slimtrim/cuda/attention_few.cuh>
#include <slimtrim/cuda/attention_many.cuh>

using namespace slimtrim;

#define SLIMTRIM_INSTANCE(T)                                                                                     \
  template void cuda::attention_few<T>(cuda::context&, cuda::head_layout const&, device_matrix<float const>,     \
                                       float const*, cuda::cache_view<T>, std::int32_t const*,                   \
                                       cuda::attention_workspace const&, device_matrix<T>);                      \
  template void cuda::attention_many<T>(cuda::context&, cuda::head_layout const&, device_matrix<T const>,        \
                                        cuda::cache_view<T>, cuda::sequence_rows, device_matrix<T>);             \
  template void cuda::rotate_and_append<T>(cuda::context&, cuda::head_layout const&, device_matrix<float const>, \
                                           float const*, cuda::sequence_rows, device_matrix<T>, cuda::cache_view<T>);
SLIMTRIM_INSTANCE(bfloat16)
SLIMTRIM_INSTANCE(float16)
