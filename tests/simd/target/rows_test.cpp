#include <doctest/doctest.h>
#include <slimtrim/simd/target/rows.hpp>

#include <vector>

namespace simd_target_rows_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

TEST_CASE("the three sums of a cosine are exact for whole numbers of any length") {
  for (index_t n : {0, 1, 15, 64, 4095, 9000}) {
    std::vector<float> x(static_cast<std::size_t>(n)), y(x);
    double xy = 0, xx = 0, yy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<float>(static_cast<int>(i % 9) - 4);
      y[i] = static_cast<float>(static_cast<int>(i % 5) - 2);
      xy += static_cast<double>(x[i] * y[i]), xx += static_cast<double>(x[i] * x[i]), yy += static_cast<double>(y[i] * y[i]);
    }
    double sums[3];
    target::cosine_sums(simd::element_kind::floats, x.data(), y.data(), n, sums);
    CHECK(sums[0] == xy);
    CHECK(sums[1] == xx);
    CHECK(sums[2] == yy);
  }
}

}  // namespace simd_target_rows_test
