// A program of an ordinary C++ compiler that uses slimtrim::cuda through the library, and slimtrim's host headers
// itself; both in one binary.
#include "kernels.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/similarity/cosine.hpp>

#include <cmath>
#include <cstdio>

int main() {
  if (!kernels::available()) return std::puts("skipped: no CUDA device"), 77;
  constexpr std::size_t rows = 4, columns = 1000;
  std::vector<float> X(rows * columns), Y(rows * columns), host(rows);
  for (std::size_t i = 0; i < X.size(); ++i) {
    X[i] = static_cast<float>(slimtrim::normal_at(1, 0, i));
    Y[i] = X[i] + static_cast<float>(i / columns) * static_cast<float>(slimtrim::normal_at(2, 0, i));
  }
  auto const device = kernels::row_cosines(X.data(), Y.data(), rows, columns);
  slimtrim::row_cosines(slimtrim::reference_backend{}, slimtrim::matrix_view<float const>(X.data(), rows, columns),
                        slimtrim::matrix_view<float const>(Y.data(), rows, columns),
                        slimtrim::vector_view<float>(host.data(), rows));
  bool same = true;
  for (std::size_t i = 0; i < rows; ++i) {
    std::printf("row %zu: device %.6f, host %.6f\n", i, static_cast<double>(device[i]), static_cast<double>(host[i]));
    same = same && std::abs(device[i] - host[i]) < 1e-6F;
  }
  return same ? 0 : 1;
}
