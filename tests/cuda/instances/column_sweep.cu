// budget: sweep_columns 96 registers, 0 bytes
// budget: fit_scales_kernel 128 registers, 0 bytes
// budget: visit_elements 48 registers, 0 bytes
#include <slimtrim/cuda/column_sweep.cuh>
#include <slimtrim/cuda/fit_scale.cuh>

using namespace slimtrim;

// Two blocks a multiprocessor of sm_90, one of sm_80.
static_assert(2 * cuda::sweep_shape::shared_bytes <= 227 * 1024 - 2048 &&
              cuda::sweep_shape::shared_bytes <= 163 * 1024);
template void cuda::fit_scales<float>(cuda::context&, device_matrix<float const>, cuda::scale_fit const&,
                                      device_vector<float const>, device_matrix<float>, device_matrix<std::uint8_t>);
template void cuda::fit_scales<bfloat16>(cuda::context&, device_matrix<bfloat16 const>, cuda::scale_fit const&,
                                         device_vector<float const>, device_matrix<float>, device_matrix<std::uint8_t>);
void (*use_column_sweep)(cuda::context&, cuda::sweep_batch const&, uniform_grid const&,
                         cuda::float_precision) = cuda::column_sweep;
