#include <slimtrim/slim/quantize/gptq.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>

#include <slim/support.hpp>

#include <utility>

namespace slim_quantize_descent_test {

using namespace slimtrim;
using namespace slimtrim_test;

TEST_CASE("each pass lowers the objective, and at the end no single code and no single scale can be improved") {
  auto const W = random_weight(5, 20, 31);
  auto const H = gram_of(random_input(60, 20, 32));
  sweep_order order = sweep_order::natural;
  bool symmetric = true;
  index_t group = 8;
  auto const run = [&](int passes) {
    return gptq(eigen_backend{}, W, as_const(H.view()),
                {.grid = {2, symmetric}, .groups = {group_kind::group, group}, .order = order, .descent_passes = passes, .guard = false});
  };
  auto const objective = [&](quantized_matrix const& q) {
    double trace = 0, sum = 0;
    for (index_t i = 0; i < 20; ++i) trace += static_cast<double>(H(i, i));
    for (index_t r = 0; r < 5; ++r)
      for (index_t a = 0; a < 20; ++a)
        for (index_t b = 0; b < 20; ++b) {
          double const h = static_cast<double>(H(a, b)) + (a == b ? 0.01 * trace / 20 : 0.0);
          sum += static_cast<double>(q.view()(r, a) - W(r, a)) * h * static_cast<double>(q.view()(r, b) - W(r, b));
        }
    return sum;
  };
  for (index_t const size : {8, 20})
    for (auto const& [with_zeros, by] : {std::pair{false, sweep_order::natural}, std::pair{true, sweep_order::natural},
                                         std::pair{false, sweep_order::activation}, std::pair{true, sweep_order::activation}}) {
      group = size;
      symmetric = !with_zeros;
      order = by;
      double const swept = objective(run(0).matrix);
      double last = swept;
      for (int passes = 1; passes < 8; ++passes) {
        double const now = objective(run(passes).matrix);
        CHECK(now <= last * (1 + 1e-6));
        last = now;
      }
      CHECK(last < swept);
      auto best = run(50).matrix;
      double const least = objective(best);
      std::vector<std::uint8_t> codes(20);
      for (index_t r = 0; r < 5; ++r) {
        for (index_t c = 0; c < 20; ++c)
          for (std::uint8_t code = 0; code < 4; ++code) {
            unpack_codes(&best.words(r, 0), 20, 2, codes.data());
            std::uint8_t const before = codes[static_cast<std::size_t>(c)];
            codes[static_cast<std::size_t>(c)] = code;
            best.set_row(r, codes.data());
            CHECK(objective(best) >= least * (1 - 1e-5));
            codes[static_cast<std::size_t>(c)] = before;
            best.set_row(r, codes.data());
          }
        // The neighbours of a scale among the values of its storage type.
        for (index_t g = 0; g < best.scales.extent(1); ++g)
          for (float const factor : {1.0F - 0x1p-8F, 1.0F + 0x1p-7F}) {
            float const before = best.scales(r, g);
            best.scales(r, g) = static_cast<float>(bfloat16(before * factor));
            REQUIRE(best.scales(r, g) != before);
            CHECK(objective(best) >= least * (1 - 1e-5));
            best.scales(r, g) = before;
          }
      }
    }
}

TEST_CASE("rows that share a scale keep it, and a scale without codes stays") {
  auto const W = random_weight(5, 20, 33);
  auto const H = gram_of(random_input(60, 20, 34));
  auto const shared = [&](int passes) {
    return gptq(eigen_backend{}, W, as_const(H.view()), {.groups = {group_kind::tensor, 0}, .descent_passes = passes, .guard = false});
  };
  CHECK(shared(3).matrix.scales(0, 0) == shared(0).matrix.scales(0, 0));
  CHECK(shared(3).report.error <= shared(0).report.error);
  matrix<float> nothing(5, 20);
  nothing.fill(0.0F);
  auto const zero = gptq(eigen_backend{}, nothing, as_const(H.view()), {.groups = {group_kind::group, 8}, .descent_passes = 3});
  CHECK(zero.report.error == 0);
  for (index_t r = 0; r < 5; ++r)
    for (index_t g = 0; g < 3; ++g) CHECK(zero.matrix.scales(r, g) == 1.0F);
}

}  // namespace slim_quantize_descent_test
