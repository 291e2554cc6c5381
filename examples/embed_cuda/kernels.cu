// The library: the only file that nvcc compiles, without relocatable device code.
#include "kernels.hpp"

#include <slimtrim/cuda/backend.cuh>
#include <slimtrim/similarity/cosine.hpp>

namespace kernels {

using namespace slimtrim;

bool available() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

std::vector<float> row_cosines(float const* X, float const* Y, std::size_t rows, std::size_t columns) {
  auto const n = static_cast<index_t>(rows), m = static_cast<index_t>(columns);
  cuda_backend const gpu;
  cuda::device_buffer<float> x(n * m), y(n * m), out(n);
  cuda::copy_to_device(gpu.stream(), X, n * m, x.data());
  cuda::copy_to_device(gpu.stream(), Y, n * m, y.data());
  slimtrim::row_cosines(gpu, as_const(x.matrix(n, m)), as_const(y.matrix(n, m)), out.view());
  gpu.synchronise();
  std::vector<float> found(rows);
  cuda::copy_to_host(gpu.stream(), out.data(), n, found.data());
  return found;
}

}  // namespace kernels
