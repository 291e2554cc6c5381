// What a separately compiled library offers of slimtrim::cuda: plain C++, no CUDA header, for a program that nvcc never sees.
#pragma once

#include <cstddef>
#include <vector>

namespace kernels {

/// Whether a CUDA device can be used.
bool available();

/// cos(X_i, Y_i) of matching rows of two matrices [rows, columns] in host memory, computed on the device.
std::vector<float> row_cosines(float const* X, float const* Y, std::size_t rows, std::size_t columns);

}  // namespace kernels
