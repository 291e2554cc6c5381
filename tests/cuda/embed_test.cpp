// Rows by token, the padding behind them, and ids that do not exist.
#include "cuda/support.hpp"

#include <slimtrim/cuda/embed.cuh>
#include <doctest/doctest.h>

namespace cuda_embed_test {

using namespace slimtrim;

TEST_CASE("embed: rows by token, zeros behind them") {
  cuda_tests::device_memory device;
  tensor<bfloat16, 2> table(5, 300);
  for (index_t i = 0; i < table.view().size(); ++i) table.view().data[i] = bfloat16(static_cast<float>(i));
  std::int32_t const tokens[3] = {4, 0, 4};
  auto const X = device.matrix<float>(3, 320);
  cuda::embed<bfloat16>(device.backend().on(), as_const(device.upload_matrix<bfloat16>(table)),
                        device.keep<std::int32_t>(tokens, 3), X);
  device.backend().synchronise();
  auto const found = device.download<float>(X);
  for (index_t t = 0; t < 3; ++t)
    for (index_t j = 0; j < 320; ++j)
      REQUIRE(found[static_cast<std::size_t>(t * 320 + j)] ==
              (j < 300 ? static_cast<float>(table(tokens[t], j)) : 0.0F));
  cuda::embed<bfloat16>(device.backend().on(), as_const(device.upload_matrix<bfloat16>(table)),
                        device.keep<std::int32_t>(tokens, 3), rows(X, 0, 0));
}

TEST_CASE("embed: an id outside the vocabulary is reported") {
  cuda_tests::device_memory device;
  auto const table = device.matrix<bfloat16>(5, 8);
  auto const X = device.matrix<float>(2, 8);
  for (std::int32_t const wrong : {5, -1}) {
    std::int32_t const tokens[2] = {0, wrong};
    cuda::embed<bfloat16>(device.backend().on(), as_const(table), device.keep<std::int32_t>(tokens, 2), X);
    CHECK_THROWS_AS(device.backend().synchronise(), numeric_error);
  }
  CHECK_THROWS_AS(cuda::embed<bfloat16>(device.backend().on(), as_const(table), nullptr, columns(X, 0, 4)), error);
}

}  // namespace cuda_embed_test
