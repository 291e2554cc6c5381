#include <slimtrim/slim/quantize/gptq.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>

#include <slim/support.hpp>

namespace slim_quantize_descent_test {

using namespace slimtrim;
using namespace slimtrim_test;

TEST_CASE("each pass lowers the objective, and at the end no single code can be improved") {
  auto const W = random_weight(5, 20, 31);
  auto const H = gram_of(random_input(60, 20, 32));
  auto const run = [&](int passes) {
    return gptq(eigen_backend{}, W, as_const(H.view()),
                {.grid = {2, true}, .groups = {group_kind::group, 20}, .descent_passes = passes, .guard = false});
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
  double last = objective(run(0).matrix);
  for (int passes = 1; passes < 8; ++passes) {
    double const now = objective(run(passes).matrix);
    CHECK(now <= last * (1 + 1e-6));
    last = now;
  }
  auto best = run(50).matrix;
  double const least = objective(best);
  std::vector<std::uint8_t> codes(20);
  for (index_t r = 0; r < 5; ++r)
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
}

}  // namespace slim_quantize_descent_test
