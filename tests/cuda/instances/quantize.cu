// budget: quantise_groups 80 registers, 0 bytes
#include <slimtrim/cuda/quantize.cuh>

using namespace slimtrim;

template void cuda::quantise<float>(cuda::context&, device_matrix<float const>, uniform_grid const&, index_t,
                                    scale_type, cuda::quantised_outputs const&);
template void cuda::quantise<bfloat16>(cuda::context&, device_matrix<bfloat16 const>, uniform_grid const&, index_t,
                                       scale_type, cuda::quantised_outputs const&);
template void cuda::quantise<float16>(cuda::context&, device_matrix<float16 const>, uniform_grid const&, index_t,
                                      scale_type, cuda::quantised_outputs const&);
