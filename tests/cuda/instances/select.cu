// budget: select_groups 64 registers, 0 bytes
#include <slimtrim/cuda/select.cuh>

using namespace slimtrim;

template void cuda::select<float>(cuda::context&, device_matrix<float const>, device_vector<float const>, index_t,
                                  index_t, device_matrix<std::uint64_t>);
template void cuda::select<bfloat16>(cuda::context&, device_matrix<bfloat16 const>, device_vector<float const>, index_t,
                                     index_t, device_matrix<std::uint64_t>);
template void cuda::select<float16>(cuda::context&, device_matrix<float16 const>, device_vector<float const>, index_t,
                                    index_t, device_matrix<std::uint64_t>);
