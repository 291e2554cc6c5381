// budget: fit_scales_kernel 128 registers, 0 bytes
// budget: sweep_columns 96 registers, 0 bytes
// budget: visit_elements 48 registers, 0 bytes
// budget: dot_rows 48 registers, 0 bytes
// budget: judge_pivots 32 registers, 0 bytes
// budget: add_panels 32 registers, 1024 bytes
// budget: route_logits 96 registers, 0 bytes
#include <slimtrim/cuda/gptq.cuh>

using namespace slimtrim;

template std::vector<std::vector<gptq_result>> cuda::gptq<bfloat16>(cuda::context&,
                                                                    std::vector<cuda::gptq_problem<bfloat16>> const&,
                                                                    gptq_options const&, cuda::float_precision);
