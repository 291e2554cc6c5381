// From a weight as files have it to the tiles of tile_weight.hpp, once, when a model is loaded.
//
// A source answers code(row, column), scale(row, group), zero(row, group) for quantised weights, or bits(row, column) for
// dense ones. The same gathering runs on the host, one lane after another, and on the device, one thread a lane.
#pragma once

#include <slimtrim/cuda/tile_weight.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/quantized_view.hpp>

#include <cstdint>
#include <type_traits>
#include <utility>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// A quantised matrix of 4-bit codes as a source.
template <space Space>
struct code_rows {
  quantized_view<Space> w{};
  [[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t code(index_t r, index_t c) const { return w.code(r, c); }
  [[nodiscard]] SLIMTRIM_HD constexpr float scale(index_t r, index_t group) const { return w.scales(r / w.block_rows, group); }
  [[nodiscard]] SLIMTRIM_HD constexpr int zero(index_t r, index_t group) const {
    return w.zeros.data != nullptr ? static_cast<int>(w.zeros(r / w.block_rows, group)) : 8;
  }
};

/// A dense matrix of 16-bit elements as a source.
template <half_precision T, space Space>
struct half_rows {
  tensor_view<T const, 2, Space> w{};
  [[nodiscard]] SLIMTRIM_HD constexpr std::uint16_t bits(index_t r, index_t c) const { return w(r, c).bits; }
};

/// Sources of 16-bit elements; all others are sources of codes.
template <class Source>
concept holds_halves = requires(Source const& from) { from.bits(index_t{0}, index_t{0}); };

/// A quantised matrix of 4-bit codes of which a mask keeps at most two of every four columns, as a source.
template <space Space>
struct sparse_rows {
  quantized_view<Space> w{};
  tensor_view<std::uint64_t const, 2, Space> mask{};  // [rows, ceil(columns / 64)], bit c % 64: kept
  [[nodiscard]] SLIMTRIM_HD constexpr bool keeps(index_t r, index_t c) const {
    return (mask(r, c / 64) >> (c % 64) & 1U) != 0;
  }
  [[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t code(index_t r, index_t c) const { return w.code(r, c); }
  [[nodiscard]] SLIMTRIM_HD constexpr float scale(index_t r, index_t group) const {
    return w.scales(r / w.block_rows, group);
  }
  [[nodiscard]] SLIMTRIM_HD constexpr int zero(index_t r, index_t group) const {
    return w.zeros.data != nullptr ? static_cast<int>(w.zeros(r / w.block_rows, group)) : 8;
  }
};

/// Sources with a mask.
template <class Source>
concept holds_sparse = requires(Source const& from) {
  from.keeps(index_t{0}, index_t{0});
};

/// Gate and up, eight rows of the one and the same eight of the other in every strip.
template <class Source>
struct fused_rows {
  Source gate{}, up{};
  [[nodiscard]] SLIMTRIM_HD constexpr Source const& part(index_t r) const { return r % 16 < 8 ? gate : up; }
  [[nodiscard]] SLIMTRIM_HD static constexpr index_t inner(index_t r) { return r / 16 * 8 + r % 8; }
  [[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t code(index_t r, index_t c) const { return part(r).code(inner(r), c); }
  [[nodiscard]] SLIMTRIM_HD constexpr float scale(index_t r, index_t g) const { return part(r).scale(inner(r), g); }
  [[nodiscard]] SLIMTRIM_HD constexpr int zero(index_t r, index_t g) const { return part(r).zero(inner(r), g); }
  [[nodiscard]] SLIMTRIM_HD constexpr bool keeps(index_t r, index_t c) const requires holds_sparse<Source> {
    return part(r).keeps(inner(r), c);
  }
  [[nodiscard]] SLIMTRIM_HD constexpr std::uint16_t bits(index_t r, index_t c) const
    requires holds_halves<Source>
  {
    return part(r).bits(inner(r), c);
  }
};

/// The 16 bytes of codes that `lane` holds of tile (strip, block).
template <class Source>
[[nodiscard]] SLIMTRIM_HD constexpr words4 lane_codes(Source const& from, index_t strip, index_t block, int lane) {
  words4 out{};
  for (int step = 0; step < tile::steps; ++step)
    for (int reg = 0; reg < 4; ++reg)
      for (int i = 0; i < 2; ++i) {
        tile_position const at = weight_element(lane, reg, i);
        index_t const column = block * tile::block_columns + block_column(step, at.column);
        out.word[step] |= from.code(strip * tile::rows + at.row, column) << (4 * (reg + 4 * i));
      }
  return out;
}

/// The 16 bytes of 16-bit elements that `lane` holds of step `step` of tile (strip, block).
template <class Source>
[[nodiscard]] SLIMTRIM_HD constexpr words4 lane_halves(Source const& from, index_t strip, index_t block, int step, int lane) {
  words4 out{};
  for (int reg = 0; reg < 4; ++reg)
    for (int i = 0; i < 2; ++i) {
      tile_position const at = weight_element(lane, reg, i);
      index_t const column = block * tile::block_columns + block_column(step, at.column);
      out.word[reg] |= static_cast<std::uint32_t>(from.bits(strip * tile::rows + at.row, column)) << (16 * i);
    }
  return out;
}

/// Two places (first + 4 * second, ascending) of a group of four columns that hold everything kept, free ones filling
/// up from the lowest; what a mask keeps beyond two is not seen.
template <class Source>
[[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t sparse_places(Source const& from, index_t row, index_t first_column) {
  std::uint32_t chosen = 0;
  int count = 0;
  for (int pass = 0; pass < 2; ++pass)  // kept ones, then free ones
    for (std::uint32_t c = 0; c < 4 && count < 2; ++c)
      if ((chosen >> c & 1U) == 0 && from.keeps(row, first_column + c) == (pass == 0)) {
        chosen |= 1U << c;
        ++count;
      }
  std::uint32_t first = 0;
  while ((chosen >> first & 1U) == 0) ++first;
  std::uint32_t second = first + 1;
  while ((chosen >> second & 1U) == 0) ++second;
  return first | second << 2;
}

/// The two words of codes and the word of places that `lane` holds of sparse tile (strip, block).
struct sparse_lane {
  std::uint32_t codes[2];
  std::uint32_t places;
};
template <class Source>
[[nodiscard]] SLIMTRIM_HD constexpr sparse_lane lane_sparse(Source const& from, tile_weight_view const& to,
                                                            index_t strip, index_t block, int lane) {
  sparse_lane out{};
  index_t const group = block >> to.group_shift;
  for (int step = 0; step < sparse_tile::steps; ++step)
    for (int upper = 0; upper < 2; ++upper)
      for (int later = 0; later < 2; ++later) {
        index_t const row = strip * tile::rows + lane / 4 + 8 * upper;
        int const chunk = lane % 4 + 4 * later;
        index_t const column = block * tile::block_columns + 4 * group_of_chunk(step, chunk);
        std::uint32_t const places = sparse_places(from, row, column);
        for (int k = 0; k < 2; ++k) {
          index_t const c = column + (places >> (2 * k) & 3U);
          std::uint32_t const code =
              from.keeps(row, c) ? from.code(row, c) : static_cast<std::uint32_t>(from.zero(row, group));
          out.codes[step] |= code << (4 * place_of_sparse_code(lane / 4 + 8 * upper, chunk, k).nibble);
        }
      }
  // This lane's word of places: of instruction lane % 4 / 2, chunks 0 .. 3 or 4 .. 7.
  int const step = lane % 4 / 2;
  for (int upper = 0; upper < 2; ++upper)
    for (int c = 0; c < 4; ++c) {
      int const chunk = 4 * (lane % 2) + c;
      index_t const column = block * tile::block_columns + 4 * group_of_chunk(step, chunk);
      out.places |= sparse_places(from, strip * tile::rows + lane / 4 + 8 * upper, column) << (16 * upper + 4 * c);
    }
  return out;
}

/// Words, scales and zero points of `to` for one lane of one tile, written to its (writable) memory.
template <class Source>
SLIMTRIM_HD constexpr void pack_lane(Source const& from, tile_weight_view const& to, index_t strip, index_t block,
                                     int lane, words4* words, std::uint16_t* scales, std::uint8_t* zeros) {
  if constexpr (holds_halves<Source>) {
    index_t const at = to.word_index(strip, block, lane);
    for (int step = 0; step < tile::steps; ++step) words[at + 32 * step] = lane_halves(from, strip, block, step, lane);
  } else {
    if constexpr (holds_sparse<Source>) {
      auto* const tile_words = reinterpret_cast<std::uint32_t*>(words) + to.sparse_index(strip, block);
      sparse_lane const mine = lane_sparse(from, to, strip, block, lane);
      tile_words[2 * lane] = mine.codes[0];
      tile_words[2 * lane + 1] = mine.codes[1];
      tile_words[sparse_tile::place_words + lane] = mine.places;
    } else {
      words[to.word_index(strip, block, lane)] = lane_codes(from, strip, block, lane);
    }
    index_t const group = block >> to.group_shift;
    if (group << to.group_shift != block || lane >= tile::rows) return;
    index_t const row = strip * tile::rows + lane;
    index_t const place = to.pair_index(strip, group, lane % 8) * 2 + lane / 8;
    float const scale = from.scale(row, group);
    scales[place] = to.scale_kind == tile_scale::bfloat16 ? bfloat16(scale).bits : float16(scale).bits;
    if (zeros != nullptr) zeros[place] = static_cast<std::uint8_t>(from.zero(row, group));
  }
}

/// The shape of the tiles of a 4-bit weight whose scales are of type `scales`. Throws `error` naming what does not fit: bits
/// other than 4, columns in activation order, rows or columns that are not multiples of 16 and 64, groups.
template <space Space>
[[nodiscard]] tile_weight_view plan_tiles(quantized_view<Space> const& w, tile_scale scales, bool fused = false) {
  expects_equal(w.bits, 4, "plan_tiles", "bits");
  expects(w.column_group == nullptr, "plan_tiles", "columns in activation order: put them in natural order first");
  bool const whole_row = w.block_columns >= w.columns;
  index_t const blocks = w.block_columns / tile::block_columns;
  expects(whole_row || (w.block_columns % tile::block_columns == 0 && (blocks & (blocks - 1)) == 0), "plan_tiles",
          "group size: expected 64 times a power of two, or whole rows");
  tile_weight_view plan;
  plan.rows = fused ? 2 * w.rows : w.rows;
  plan.columns = w.columns;
  plan.scale_kind = scales;
  plan.group_shift = whole_row_shift;
  if (!whole_row) {
    plan.group_shift = 0;
    while (index_t{1} << plan.group_shift < blocks) ++plan.group_shift;
  }
  check_tile_weight(plan);
  expects(!fused || w.rows % 8 == 0, "plan_tiles", "rows of gate and up: expected a multiple of 8");
  return plan;
}
/// The same for a weight of which two of every four columns are kept.
template <space Space>
[[nodiscard]] tile_weight_view plan_tiles(sparse_rows<Space> const& from, tile_scale scales, bool fused = false) {
  expects_equal(from.mask.extent(0), from.w.rows, "plan_tiles", "rows of the mask");
  expects_equal(from.mask.extent(1), ceil_div(from.w.columns, 64), "plan_tiles", "words of a row of the mask");
  tile_weight_view plan = plan_tiles(from.w, scales, fused);
  plan.kind = tile_kind::sparse4;
  return plan;
}
/// The same for a dense weight.
template <half_precision T, space Space>
[[nodiscard]] tile_weight_view plan_tiles(tensor_view<T const, 2, Space> w, bool fused = false) {
  tile_weight_view plan;
  plan.rows = fused ? 2 * w.extent(0) : w.extent(0);
  plan.columns = w.extent(1);
  plan.kind = std::is_same_v<T, bfloat16> ? tile_kind::bfloat16 : tile_kind::float16;
  check_tile_weight(plan);
  return plan;
}

/// bfloat16 or float16, whichever holds every scale of w exactly; throws `error` when neither does.
[[nodiscard]] inline tile_scale scale_type_of(quantized_view<> const& w) {
  bool in_bfloat16 = true, in_float16 = true;
  for (index_t r = 0; r < w.scales.extent(0); ++r)
    for (index_t g = 0; g < w.scales.extent(1); ++g) {
      float const s = w.scales(r, g);
      in_bfloat16 = in_bfloat16 && static_cast<float>(bfloat16(s)) == s;
      in_float16 = in_float16 && static_cast<float>(float16(s)) == s;
    }
  expects(in_bfloat16 || in_float16, "scale_type_of", "scales: expected values of bfloat16 or of float16");
  return in_bfloat16 ? tile_scale::bfloat16 : tile_scale::float16;
}

/// Tiles in host memory, to be copied to a device or read by element_at.
struct host_tiles {
  tile_weight_view view{};
  buffer<words4> words{};
  buffer<std::uint16_t> scales{};
  buffer<std::uint8_t> zeros{};
};

/// Packs a source on the host. `plan` as plan_tiles gives it. O(rows columns).
template <class Source>
[[nodiscard]] host_tiles pack_tiles(Source const& from, tile_weight_view const& plan, bool with_zeros) {
  host_tiles out;
  out.view = plan;
  out.words = buffer<words4>(plan.words_needed());
  out.scales = buffer<std::uint16_t>(plan.scales_needed());
  out.zeros = buffer<std::uint8_t>(with_zeros ? plan.scales_needed() : 0);
  std::uint8_t* const zeros = with_zeros ? out.zeros.data() : nullptr;
  for (index_t strip = 0; strip < plan.strips(); ++strip)
    for (index_t block = 0; block < plan.blocks(); ++block)
      for (int lane = 0; lane < 32; ++lane)
        pack_lane(from, plan, strip, block, lane, out.words.data(), out.scales.data(), zeros);
  out.view.words = out.words.data();
  out.view.scales = out.scales.data();
  out.view.zeros = zeros;
  return out;
}

/// A 4-bit weight in tiles.
[[nodiscard]] inline host_tiles pack_tiles(quantized_view<> const& w) {
  return pack_tiles(code_rows<space::host>{w}, plan_tiles(w, scale_type_of(w)), w.zeros.data != nullptr);
}
/// A 2:4 sparse 4-bit weight in tiles. Throws `error` where the mask keeps more than two of four columns.
[[nodiscard]] inline host_tiles pack_tiles(sparse_rows<space::host> const& from) {
  tile_weight_view const plan = plan_tiles(from, scale_type_of(from.w));
  for (index_t r = 0; r < from.w.rows; ++r)
    for (index_t c = 0; c < from.w.columns; c += 4) {
      int kept = 0;
      for (index_t i = 0; i < 4; ++i) kept += from.keeps(r, c + i) ? 1 : 0;
      expects(kept <= 2, "pack_tiles", "mask: expected at most two of every four columns kept");
    }
  return pack_tiles(from, plan, from.w.zeros.data != nullptr);
}
/// A dense weight in tiles.
template <half_precision T>
[[nodiscard]] host_tiles pack_tiles(matrix_view<T const> w) {
  return pack_tiles(half_rows<T, space::host>{w}, plan_tiles(w), false);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
