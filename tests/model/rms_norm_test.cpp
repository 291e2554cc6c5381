#include <slimtrim/model/rms_norm.hpp>

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace model_rms_norm_test {

using namespace slimtrim;

TEST_CASE("rows are scaled to weight times unit root mean square") {
  reference_backend const backend;
  for (index_t const width : {1, 7, 8, 33}) {
    tensor<float, 2> x(5, width), y(5, width);
    std::vector<float> w;
    for (index_t j = 0; j < width; ++j) w.push_back(1 + static_cast<float>(j));
    for (index_t i = 0; i < 5; ++i)
      for (index_t j = 0; j < width; ++j)
        x(i, j) = static_cast<float>(normal_at(1, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(j)));
    rms_norm(backend, x.view(), w, 1e-5, y.view());
    for (index_t i = 0; i < 5; ++i) {
      double mean = 0;
      for (index_t j = 0; j < width; ++j) mean += std::pow(static_cast<double>(x(i, j)), 2) / static_cast<double>(width);
      for (index_t j = 0; j < width; ++j)
        CHECK(y(i, j) == doctest::Approx(static_cast<double>(w[static_cast<std::size_t>(j)]) *
                                         static_cast<double>(x(i, j)) / std::sqrt(mean + 1e-5)));
    }
  }
}

TEST_CASE("a zero row stays zero, large rows do not overflow, in place works") {
  reference_backend const backend;
  tensor<float, 2> x(2, 4);
  x.fill(0);
  for (index_t j = 0; j < 4; ++j) x(1, j) = 1e30F;
  std::vector<float> const w(4, 2.0F);
  rms_norm(backend, x.view(), w, 1e-6, x.view());
  for (index_t j = 0; j < 4; ++j) {
    CHECK(x(0, j) == 0);
    CHECK(x(1, j) == doctest::Approx(2));
  }
  CHECK_THROWS_AS(rms_norm(backend, columns(x.view(), 0, 3), w, 1e-6, columns(x.view(), 0, 3)), error);
}

}  // namespace model_rms_norm_test
