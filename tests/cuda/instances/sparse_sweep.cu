// budget: sweep_columns 96 registers, 0 bytes
// budget: count_digits 48 registers, 9216 bytes
// budget: narrow_cuts 32 registers, 1024 bytes
// budget: mark_kept 64 registers, 1024 bytes
// budget: visit_elements 48 registers, 0 bytes
#include <slimtrim/cuda/sparse_sweep.cuh>

using namespace slimtrim;

// Two blocks a multiprocessor of sm_90, three without a grid.
static_assert(2 * (cuda::sweep_shape::shared_bytes + 1024) <= 228 * 1024 &&
              3 * (cuda::sweep_shape::bytes_without_codes + 1024) <= 228 * 1024);
void (*use_sparse_sweep)(cuda::context&, cuda::sparse_batch const&, cuda::sparse_choice const&,
                         cuda::float_precision) = cuda::sparse_sweep;
