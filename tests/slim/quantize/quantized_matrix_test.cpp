#include <slimtrim/slim/quantize/quantized_matrix.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace slim_quantize_quantized_matrix_test {

using namespace slimtrim;

TEST_CASE("the view decodes what was set, in every group shape") {
  for (auto kind : {group_kind::tensor, group_kind::channel, group_kind::group})
    for (bool symmetric : {true, false}) {
      quantized_matrix q(3, 10, {.bits = 3, .symmetric = symmetric}, {kind, 4}, scale_type::float32);
      CHECK(q.scales.extent(0) == (kind == group_kind::tensor ? 1 : 3));
      CHECK(q.scales.extent(1) == (kind == group_kind::group ? 3 : 1));
      for (index_t r = 0; r < q.scales.extent(0); ++r)
        for (index_t g = 0; g < q.scales.extent(1); ++g)
          q.set(r, g, {static_cast<float>(1 + r + 10 * g), symmetric ? 4 : static_cast<int>((r + g) % 8)});
      std::vector<std::uint8_t> codes(10);
      for (index_t r = 0; r < 3; ++r) {
        for (index_t c = 0; c < 10; ++c) codes[static_cast<std::size_t>(c)] = static_cast<std::uint8_t>((r + c) % 8);
        q.set_row(r, codes.data());
      }
      matrix<float> out(3, 10);
      dequantize(q.view(), out.view());
      for (index_t r = 0; r < 3; ++r)
        for (index_t c = 0; c < 10; ++c) {
          index_t const block = kind == group_kind::tensor ? 0 : r, g = kind == group_kind::group ? c / 4 : 0;
          int const zero = symmetric ? 4 : static_cast<int>((block + g) % 8);
          CHECK(out(r, c) == static_cast<float>((static_cast<int>((r + c) % 8) - zero) * static_cast<int>(1 + block + 10 * g)));
        }
    }
}

TEST_CASE("bytes count codes, scales in their stored type and packed zero points") {
  quantized_matrix const q(64, 256, {.bits = 4, .symmetric = false}, {group_kind::group, 128}, scale_type::bfloat16);
  CHECK(q.bytes() == 64 * 128 + 64 * 2 * 2 + 8 * 2 * 4);
}

}  // namespace slim_quantize_quantized_matrix_test
