#include <doctest/doctest.h>
#include <slimtrim/simd/target/dense.hpp>

#include <vector>

namespace simd_target_dense_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

TEST_CASE("rows of whole numbers are summed exactly, whatever is left over at the end of a row") {
  for (index_t columns : {1, 7, 16, 31, 64, 77}) {
    for (index_t tokens : {1, 2, 3, 4, 7}) {
      index_t const rows = 6;
      std::vector<float> W(static_cast<std::size_t>(rows * columns)), X(static_cast<std::size_t>(tokens * 128), 0.0F);
      std::vector<float> Y(static_cast<std::size_t>(tokens * rows));
      for (std::size_t i = 0; i < W.size(); ++i) W[i] = static_cast<float>(static_cast<int>(i % 11) - 5);
      for (index_t t = 0; t < tokens; ++t)
        for (index_t k = 0; k < columns; ++k) X[static_cast<std::size_t>(t * 128 + k)] = static_cast<float>(k % 5 - t);
      target::dense_few(simd::element_kind::floats, W.data(), columns, columns, {X.data(), nullptr, 128, 0, nullptr},
                        tokens, {Y.data(), rows, 1, rows});
      for (index_t t = 0; t < tokens; ++t)
        for (index_t r = 0; r < rows; ++r) {
          float sum = 0;
          for (index_t k = 0; k < columns; ++k)
            sum += X[static_cast<std::size_t>(t * 128 + k)] * W[static_cast<std::size_t>(r * columns + k)];
          CHECK(Y[static_cast<std::size_t>(t * rows + r)] == sum);
        }
    }
  }
}

}  // namespace simd_target_dense_test
