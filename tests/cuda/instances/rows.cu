// budget: dot_panels 40 registers, 1024 bytes
// budget: add_panels 32 registers, 1024 bytes
// budget: dot_rows 48 registers, 0 bytes
// budget: square_column_panels 48 registers, 0 bytes
// budget: add_column_panels 40 registers, 0 bytes
// budget: cosine_rows 96 registers, 0 bytes
#include <slimtrim/cuda/rows.cuh>

using namespace slimtrim;

template double cuda::dot<float>(cuda::context&, device_vector<float const>, device_vector<float const>);
template double cuda::dot<double>(cuda::context&, device_vector<double const>, device_vector<double const>);
template void cuda::row_dots<float>(cuda::context&, device_matrix<float const>, device_matrix<float const>,
                                    device_vector<float>);
template void cuda::row_dots<double>(cuda::context&, device_matrix<double const>, device_matrix<double const>,
                                     device_vector<double>);
template void cuda::column_square_sums<float, float>(cuda::context&, device_matrix<float const>, device_vector<float>);
template void cuda::column_square_sums<bfloat16, float>(cuda::context&, device_matrix<bfloat16 const>,
                                                        device_vector<float>);
template void cuda::column_square_sums<float16, float>(cuda::context&, device_matrix<float16 const>,
                                                       device_vector<float>);
template void cuda::row_cosines<float, float>(cuda::context&, device_matrix<float const>, device_matrix<float const>,
                                              device_vector<float>);
template void cuda::row_cosines<double, double>(cuda::context&, device_matrix<double const>,
                                                device_matrix<double const>, device_vector<double>);
template void cuda::row_cosines<bfloat16, float>(cuda::context&, device_matrix<bfloat16 const>,
                                                 device_matrix<bfloat16 const>, device_vector<float>);
template void cuda::row_cosines<float16, float>(cuda::context&, device_matrix<float16 const>,
                                                device_matrix<float16 const>, device_vector<float>);
