// A lane's part of a weight tile on its way to the tensor cores: loads, and codes made into 16-bit numbers.
#pragma once

#include <slimtrim/cuda/arch/sm80.cuh>
#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/memory.cuh>
#include <slimtrim/cuda/tile_codes.hpp>
#include <slimtrim/cuda/tile_weight.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// What one lane reads of one tile, still as bits.
template <tile_kind Kind>
struct lane_words {
  static constexpr int word_count = Kind == tile_kind::codes4 ? 1 : 4;
  words4 words[word_count];
};

template <>
struct lane_words<tile_kind::sparse4> {
  words2 codes;
  std::uint32_t places;  // which columns are kept
};

/// Some tiles that follow one another and share scales and zero points, those of the lane's two rows.
template <tile_kind Kind, int Tiles>
struct lane_turn {
  lane_words<Kind> tile[Tiles];
  std::uint32_t scales = 0;
  std::uint32_t zeros = 0x0808;
};

/// One tile with its scales and zero points.
template <tile_kind Kind>
struct lane_tile : lane_words<Kind> {
  std::uint32_t scales = 0;
  std::uint32_t zeros = 0x0808;
};

/// Where one lane finds the tiles of one strip.
template <tile_kind Kind>
class strip_reader {
  static constexpr std::uint32_t words_a_tile =
      Kind == tile_kind::codes4 ? 32 : (Kind == tile_kind::sparse4 ? sparse_tile::words / 4 : 128);

 public:
  __device__ __forceinline__ strip_reader(tile_weight_view const& w, index_t strip, int lane)
      : words_(w.words + strip * w.blocks() * words_a_tile + (Kind == tile_kind::sparse4 ? 0 : lane)),
        group_shift_(w.group_shift),
        lane_(lane) {
    if constexpr (has_codes(Kind)) {
      index_t const pair = w.pair_index(strip, 0, lane / 4);
      scales_ = reinterpret_cast<std::uint32_t const*>(w.scales) + pair;
      if (w.zeros != nullptr) zeros_ = reinterpret_cast<std::uint16_t const*>(w.zeros) + pair;
    }
  }
  /// Starts the loads of tile `block`. Each byte of the words is read by one lane only.
  template <bool WithZeros = true>
  __device__ __forceinline__ void load(std::uint32_t block, lane_tile<Kind>& to) const {
    load_words(block, to);
    load_scales<WithZeros>(block, to);
  }
  __device__ __forceinline__ void load_words(std::uint32_t block, lane_words<Kind>& to) const {
    cursor(*this, block).load(0, to);
  }
  /// Scales, and zero points where asked, of the group of tile `block`. Ahead: in front of wait_for_earlier_work.
  template <bool WithZeros, bool Ahead = false, class Held>
  __device__ __forceinline__ void load_scales(std::uint32_t block, Held& to) const {
    if constexpr (has_codes(Kind)) {
      std::uint32_t const at = (block >> group_shift_) * 8;
      to.scales = Ahead ? load_ahead(scales_ + at) : load_shared_by_blocks(scales_ + at);
      if constexpr (WithZeros)
        if (zeros_ != nullptr) to.zeros = Ahead ? load_ahead(zeros_ + at) : load_shared_by_blocks(zeros_ + at);
    }
  }

  /// A place among the strip's tiles that moves along.
  class cursor {
   public:
    __device__ __forceinline__ cursor(strip_reader const& of, std::uint32_t block)
        : at_(reinterpret_cast<char const*>(of.words_ + block * words_a_tile)) {
      if constexpr (Kind == tile_kind::sparse4) {
        places_ = at_ + 4 * (sparse_tile::place_words + of.lane_);
        at_ += 8 * of.lane_;
      }
    }
    /// Starts the loads of the tile `tiles` behind the place. Ahead: in front of wait_for_earlier_work.
    template <bool Ahead = false>
    __device__ __forceinline__ void load(std::uint32_t tiles, lane_words<Kind>& to) const {
      char const* const from = at_ + tiles * tile_bytes;
      if constexpr (Kind == tile_kind::sparse4) {
        auto const* const codes = reinterpret_cast<words2 const*>(from);
        auto const* const places = reinterpret_cast<std::uint32_t const*>(places_ + tiles * tile_bytes);
        to.codes = Ahead ? load_ahead(codes) : load_once(codes);
        to.places = Ahead ? load_ahead(places) : load_once(places);
      } else {
        auto const* const words = reinterpret_cast<words4 const*>(from);
#pragma unroll
        for (int i = 0; i < lane_words<Kind>::word_count; ++i)
          to.words[i] = Ahead ? load_ahead(words + 32 * i) : load_once(words + 32 * i);
      }
    }
    __device__ __forceinline__ void advance(std::uint32_t tiles) {
      at_ += tiles * tile_bytes;
      if constexpr (Kind == tile_kind::sparse4) places_ += tiles * tile_bytes;
    }

   private:
    static constexpr std::uint32_t tile_bytes = 16 * words_a_tile;
    char const* at_;
    char const* places_ = nullptr;
  };

 private:
  words4 const* words_;
  std::uint32_t const* scales_ = nullptr;
  std::uint16_t const* zeros_ = nullptr;
  int group_shift_;
  int lane_;
};

/// Register `reg` of A in step `step`: code - zero, or the elements themselves.
template <half_precision T, tile_kind Kind>
__device__ __forceinline__ void weight_registers(lane_words<Kind> const& from, int step, std::uint32_t const (&raised)[2],
                                                 std::uint32_t (&a)[4]) {
#pragma unroll
  for (int reg = 0; reg < 4; ++reg) {
    if constexpr (Kind == tile_kind::codes4) {
      a[reg] = subtract_pairs<T>(and_or(from.words[0].word[step] >> (4 * reg), code_mask, code_base<T>()), raised[reg % 2]);
    } else if constexpr (Kind == tile_kind::sparse4) {
      a[reg] = subtract_pairs<T>(and_or(from.codes.word[step] >> (4 * reg), code_mask, code_base<T>()), raised[reg % 2]);
    } else {
      a[reg] = from.words[step].word[reg];
    }
  }
}

/// base + zero point of the lane's rows g and g + 8.
template <half_precision T>
__device__ __forceinline__ void raised_zeros(std::uint32_t zeros, std::uint32_t (&raised)[2]) {
  raised[0] = raised_zero<T>(zeros & 0xffU);
  raised[1] = raised_zero<T>(zeros >> 8);
}

/// The scales of the lane's rows g and g + 8.
__device__ __forceinline__ void scales_of(tile_scale kind, std::uint32_t bits, float (&scale)[2]) {
  auto const low = static_cast<std::uint16_t>(bits & 0xffffU), high = static_cast<std::uint16_t>(bits >> 16);
  if (kind == tile_scale::bfloat16) {
    scale[0] = static_cast<float>(bfloat16::from_bits(low));
    scale[1] = static_cast<float>(bfloat16::from_bits(high));
  } else {
    scale[0] = widen_float16(low);
    scale[1] = widen_float16(high);
  }
  settle(scale[0]);
  settle(scale[1]);
}

/// Instructions that a tile takes, and words of activations of one of them.
template <tile_kind Kind>
inline constexpr int tile_steps = Kind == tile_kind::sparse4 ? sparse_tile::steps : tile::steps;
template <tile_kind Kind>
inline constexpr int step_words = 8 / tile_steps<Kind>;

/// The 16 activations that a lane takes of 64 columns of its token: step s uses words step_words s and the next.
struct lane_activations {
  std::uint32_t word[8] = {};
};

/// Every other word of 16 bytes, for one lane of a pair that shares the columns of a sparse tile.
__device__ __forceinline__ void take_half(words4 const& from, int lane, std::uint32_t* to) {
  bool const odd = lane % 2 != 0;
  to[0] = odd ? from.word[1] : from.word[0];
  to[1] = odd ? from.word[3] : from.word[2];
}

/// The first of the lane's columns of 64.
template <tile_kind Kind>
[[nodiscard]] __device__ __forceinline__ int first_column(int lane) {
  return Kind == tile_kind::sparse4 ? 32 * (lane % 4 / 2) : 16 * (lane % 4);
}

/// Reads them, from the lane's first column on.
template <tile_kind Kind, class T>
__device__ __forceinline__ void read_activations(T const* columns, int lane, lane_activations& to) {
  auto const* const from = reinterpret_cast<words4 const*>(columns);
  if constexpr (Kind == tile_kind::sparse4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) take_half(load_made_before(from + i), lane, to.word + 2 * i);
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      words4 const part = load_made_before(from + i);
#pragma unroll
      for (int w = 0; w < 4; ++w) to.word[4 * i + w] = part.word[w];
    }
  }
}

/// d += one step of a tile times activations. x: the step's words.
template <half_precision T, tile_kind Kind>
__device__ __forceinline__ void multiply_step(float (&d)[4], lane_words<Kind> const& from, int step,
                                              std::uint32_t const (&a)[4], std::uint32_t const* x) {
  if constexpr (Kind == tile_kind::sparse4) {
    std::uint32_t const b[4] = {x[0], x[1], x[2], x[3]};
    step == 0 ? multiply_sparse_tile<T, 0>(d, a, b, from.places) : multiply_sparse_tile<T, 1>(d, a, b, from.places);
  } else {
    std::uint32_t const b[2] = {x[0], x[1]};
    multiply_tile<T>(d, a, b);
  }
}

/// Whether activations can be read 16 bytes at a time: aligned, contiguous rows a multiple of 8 elements apart.
template <half_precision T>
[[nodiscard]] bool takes_activations(device_matrix<T const> X) {
  return reinterpret_cast<std::uintptr_t>(X.data) % 16 == 0 && X.stride(1) == 1 && (X.stride(0) % 8 == 0 || X.extent(0) <= 1);
}

/// Throws `error` unless X Wᵀ fits Y and every lane can read 16 bytes at a time.
template <half_precision T, tile_kind Kind, class Result>
void check_product_operands(tile_weight_view const& w, device_matrix<T const> X, device_matrix<Result> Y,
                            char const* where) {
  check_tile_weight(w);
  expects(w.kind == Kind, where, "kind of the weight: expected that of the kernel");
  expects(reinterpret_cast<std::uintptr_t>(w.words) % 16 == 0, where, "weight: expected words aligned to 16 bytes");
  expects_equal(X.extent(1), w.columns, where, "columns of the activations");
  expects_equal(Y.extent(0), X.extent(0), where, "rows of the result");
  expects_equal(Y.extent(1), w.rows, where, "columns of the result");
  expects(takes_activations(X), where, "X: expected rows aligned to 16 bytes");
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
