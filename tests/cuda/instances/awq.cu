// budget: fit_scales_kernel 128 registers, 0 bytes
// budget: largest_of_groups 48 registers, 0 bytes
// budget: magnitude_panels 64 registers, 0 bytes
// budget: scaled_rounding_errors 64 registers, 0 bytes
// budget: clip_groups 104 registers, 0 bytes
// budget: visit_elements 48 registers, 0 bytes
// budget: dot_rows 48 registers, 0 bytes
// budget: add_column_panels 40 registers, 0 bytes
// budget: add_panels 32 registers, 1024 bytes
// budget: judge_pivots 32 registers, 0 bytes
// budget: route_logits 96 registers, 0 bytes
#include <slimtrim/cuda/awq.cuh>

using namespace slimtrim;

static_assert(cuda::detail::clip_shape::shared_bytes <= 163 * 1024);
template awq_scales cuda::search_awq_scales<bfloat16>(cuda::context&, std::vector<cuda::awq_member<bfloat16>> const&,
                                                      awq_options const&, std::vector<index_t> const&,
                                                      cuda::float_precision);
template quantized_matrix cuda::awq<bfloat16>(cuda::context&, device_matrix<bfloat16 const>, device_matrix<float const>,
                                              std::vector<float> const&, awq_options const&, device_matrix<float const>,
                                              index_t*);
