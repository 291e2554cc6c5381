// budget: fit_scales_kernel 128 registers, 0 bytes
// budget: sweep_columns 96 registers, 0 bytes
// budget: count_digits 48 registers, 9216 bytes
// budget: narrow_cuts 32 registers, 1024 bytes
// budget: mark_kept 64 registers, 1024 bytes
// budget: select_groups 64 registers, 0 bytes
// budget: visit_elements 48 registers, 0 bytes
// budget: dot_rows 48 registers, 0 bytes
// budget: judge_pivots 32 registers, 0 bytes
// budget: add_panels 32 registers, 1024 bytes
#include <slimtrim/cuda/sparsegpt.cuh>

using namespace slimtrim;

template std::vector<std::vector<std::optional<sparsegpt_result>>> cuda::sparsegpt<bfloat16>(
    cuda::context&, std::vector<cuda::sparsegpt_problem<bfloat16>> const&, sparsegpt_options const&, cuda::float_precision);
