#include <doctest/doctest.h>
#include <slimtrim/simd/interleaved_weight.hpp>

#include <vector>

namespace simd_interleaved_weight_test {

using namespace slimtrim;

TEST_CASE("word w of row r lies in lane r of vector w, behind the scales of its group") {
  index_t const rows = 3, columns = 64;
  std::vector<std::uint32_t> words(static_cast<std::size_t>(rows * 8));
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint32_t>(0x1000 + i);
  std::vector<float> scales{1, 2, 3, 4, 5, 6};
  quantized_view<> w;
  w.rows = rows, w.columns = columns, w.bits = 4, w.words = words.data(), w.words_per_row = 8, w.block_columns = 32;
  w.scales = tensor_view<float const, 2>(scales.data(), rows, 2);
  simd::weight_arena arena;
  // What keeps every scale: bfloat16, then float16 for one that needs ten bits, then float.
  for (float const last : {6.0F, 6.0F + 0x1p-6F, 6.0F + 0x1p-12F}) {
    scales[5] = last;
    auto const found = simd::interleave(w, 8, arena);
    REQUIRE(found.has_value());
    auto const& view = found->view;
    bool const wide = last == 6.0F + 0x1p-12F;
    CHECK(view.scales == (last == 6.0F ? simd::scale_kind::bfloat16s
                          : wide       ? simd::scale_kind::floats
                                       : simd::scale_kind::float16s));
    CHECK(view.panel_bytes == 64 + 2 * 4 * 32);
    for (index_t g = 0; g < 2; ++g)
      for (index_t r = 0; r < 8; ++r) {
        CHECK(simd::detail::read_scale(view.scales, view.data + view.head_at(g), r) ==
              (r < rows ? scales[static_cast<std::size_t>(r * 2 + g)] : 0.0F));
        auto const* const stored = reinterpret_cast<std::uint32_t const*>(view.data + view.words_at(g));
        for (index_t word = 0; word < 4; ++word)
          CHECK(stored[word * 8 + r] == (r < rows ? words[static_cast<std::size_t>(r * 8 + g * 4 + word)] : 0U));
      }
  }
}

TEST_CASE("weights that do not fit are left alone") {
  simd::weight_arena arena;
  quantized_view<> w;
  w.rows = 2, w.columns = 64, w.bits = 4, w.block_columns = 20;
  CHECK_FALSE(simd::plan_panels(w, 8).has_value());
  std::vector<std::int32_t> const order(64, 0);
  w.block_columns = 32, w.column_group = order.data();
  CHECK_FALSE(simd::interleave(w, 8, arena).has_value());
  CHECK_FALSE(simd::plan_panels(prepared_view{}, 8).has_value());
  CHECK(simd::panels_of(weight_view(w)) == nullptr);
}

}  // namespace simd_interleaved_weight_test
