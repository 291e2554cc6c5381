// N:M masks on the device against the host's.
#include "cuda/support.hpp"

#include <doctest/doctest.h>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/select.cuh>
#include <slimtrim/slim/sparse/magnitude.hpp>
#include <slimtrim/slim/sparse/wanda.hpp>

#include <cmath>

namespace cuda_select_test {

using namespace slimtrim;

TEST_CASE("cuda select: masks are the host's, by magnitude and by Wanda's score, with ties and short groups") {
  for (index_t columns : {1, 64, 70, 200})
    for (index_t of : {4, 8})
      for (index_t keep : {index_t{0}, of / 2, of}) {
        cuda_tests::device_memory device;
        index_t const rows = 9;
        tensor<bfloat16, 2> W(rows, columns);
        for (index_t i = 0; i < rows * columns; ++i)  // few values, so that there are ties
          W.view().data[i] = bfloat16(std::round(3 * static_cast<float>(normal_at(6, 6, static_cast<std::uint64_t>(i)))));
        std::vector<float> moments(static_cast<std::size_t>(columns));
        for (std::size_t j = 0; j < moments.size(); ++j) moments[j] = static_cast<float>(1 + random_bits_at(6, 7, j) % 3);
        vector_view<float const> const second(moments.data(), columns);
        sparsity const pattern{.keep = keep, .of = of};
        auto const by_size = magnitude_mask(reference_backend{}, as_const(W.view()), pattern);
        auto const by_score = wanda_mask(reference_backend{}, as_const(W.view()), second, pattern);
        auto const norms = detail::scoring_norms(second);
        auto const w = as_const(device.upload_matrix<bfloat16>(W));
        auto const out = device.matrix<std::uint64_t>(rows, ceil_div(columns, 64));
        device_vector<float const> const device_norms(device.keep<float>(norms.data(), columns), columns);
        for (bool scored : {false, true}) {
          cuda::select<bfloat16>(device.backend().on(), w, scored ? device_norms : device_vector<float const>{}, keep, of, out);
          device.backend().synchronise();
          auto const found = device.download<std::uint64_t>(out);
          auto const& expected = scored ? by_score : by_size;
          for (index_t r = 0; r < rows; ++r)
            for (index_t i = 0; i < out.extent(1); ++i)
              REQUIRE(found[static_cast<std::size_t>(r * out.extent(1) + i)] == expected.word(r, i));
        }
      }
}

}  // namespace cuda_select_test
