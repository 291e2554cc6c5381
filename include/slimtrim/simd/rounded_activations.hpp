// Activations rounded to 8 bits, as the integer kernels read them: token by token, or in tiles of many tokens.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/simd/kernel_table.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cstring>
#include <string>

namespace slimtrim {
inline namespace v0 {
namespace simd {

namespace detail {

// One row of X as contiguous floats: itself, or copied into `scratch`.
[[nodiscard]] inline float const* contiguous_row(matrix_view<float const> X, index_t t, buffer<float>& scratch) {
  float const* const from = X.data + t * X.stride(0);
  if (X.stride(1) == 1 || X.extent(1) <= 1) return from;
  if (scratch.size() < static_cast<std::size_t>(X.extent(1))) scratch = buffer<float>(X.extent(1));
  for (index_t k = 0; k < X.extent(1); ++k) scratch[k] = from[k * X.stride(1)];
  return scratch.data();
}

// By what the sum of a block's codes is multiplied to start a dot product with codes of `plan`: minus their zero point,
// or minus one where every row has its own.
[[nodiscard]] inline std::int32_t start_factor(kernel_table const& kernels, panel_view const& plan) {
  if (plan.has_zeros) return -1;
  return (plan.kind == element_kind::codes8 ? kernels.byte_offset : 0) - static_cast<std::int32_t>(plan.middle);
}

}  // namespace detail

/// Activations rounded to 8 bits: in each block of 32 columns, scale = max |x| / 127 and code = round(x / scale), ties
/// to even. So |x - scale code| <= max |x| / 254 (1 + 2^-20), and a product with weights W is off by at most sum over
/// blocks of max |x| / 254 * sum |W| over the block, plus float rounding. A block whose largest magnitude is below
/// 2^-100 counts as zero. Throws `numeric_error` on NaN and infinity.
class rounded_activations {
 public:
  /// X: [tokens, columns] for panels laid out as `plan`.
  rounded_activations(kernel_table const& kernels, matrix_view<float const> X, panel_view const& plan,
                      executor* run_on = nullptr)
      : rounded_activations(kernels, X.extent(0), plan) {
    constexpr index_t tokens_a_piece = 8;
    parallel_for(tokens_ > 2 * tokens_a_piece ? run_on : nullptr, ceil_div(tokens_, tokens_a_piece),
                 [&](index_t piece) {
                   buffer<float> scratch;
                   index_t const last = std::min(tokens_, (piece + 1) * tokens_a_piece);
                   for (index_t t = piece * tokens_a_piece; t < last; ++t)
                     round(kernels, t, 0, detail::contiguous_row(X, t, scratch), X.extent(1));
                 });
  }
  /// Room for `tokens` tokens, to be filled by `round`.
  rounded_activations(kernel_table const& kernels, index_t tokens, panel_view const& plan)
      : kind_(plan.kind),
        factor_(detail::start_factor(kernels, plan)),
        blocks_(plan.blocks),
        tokens_(tokens),
        codes_(tokens_ * blocks_ * block_columns),
        scales_(tokens_ * blocks_),
        starts_(tokens_ * blocks_) {}

  /// Rounds columns first .. first + count - 1 of token t; whole blocks, or up to the last column. Different stretches
  /// may be rounded at the same time.
  void round(kernel_table const& kernels, index_t t, index_t first, float const* x, index_t count) {
    index_t const block = first / block_columns, at = t * blocks_ + block, blocks = ceil_div(count, block_columns);
    index_t const bad = kernels.round_row(x, count, kind_, codes_.data() + at * block_columns, scales_.data() + at,
                                          starts_.data() + at);
    if (bad >= 0)
      throw numeric_error("product: activations of token " + std::to_string(t) + ", columns from " +
                          std::to_string((block + bad) * block_columns) + ": expected finite numbers");
    for (index_t i = at; i < at + blocks; ++i) starts_[i] *= factor_;
  }

  /// Whether panels of `plan` can take these activations.
  [[nodiscard]] bool suit(kernel_table const& kernels, panel_view const& plan) const {
    return plan.kind == kind_ && plan.blocks == blocks_ && detail::start_factor(kernels, plan) == factor_;
  }
  [[nodiscard]] index_t tokens() const { return tokens_; }
  [[nodiscard]] index_t blocks() const { return blocks_; }

  /// Tokens first, first + 1, ... as the kernels take them.
  [[nodiscard]] int8_activations from(index_t first) const {
    return {codes_.data() + first * blocks_ * block_columns,
            scales_.data() + first * blocks_,
            starts_.data() + first * blocks_,
            blocks_,
            1,
            nullptr};
  }
  /// The tokens in rows tokens[0], tokens[1], ...
  [[nodiscard]] int8_activations of(std::int32_t const* tokens) const {
    return {codes_.data(), scales_.data(), starts_.data(), blocks_, 1, tokens};
  }

 private:
  element_kind kind_;
  std::int32_t factor_;
  index_t blocks_, tokens_;
  buffer<std::int8_t> codes_;
  buffer<float> scales_;
  buffer<std::int32_t> starts_;
};

/// The same in tiles of at most int8_tokens tokens: block 0 of a tile's tokens side by side, then block 1, so that a
/// product with many tokens reads one stream.
class rounded_tiles {
 public:
  rounded_tiles(rounded_activations const& X, executor* run_on)
      : tokens_(X.tokens()),
        blocks_(X.blocks()),
        tiles_(ceil_div(tokens_, int8_tokens)),
        codes_(tokens_ * blocks_ * block_columns),
        scales_(tokens_ * blocks_),
        starts_(tokens_ * blocks_) {
    parallel_for(run_on, tiles_, [&](index_t tile) {
      index_t const first = first_token(tile), here = first_token(tile + 1) - first;
      int8_activations const from = X.from(first);
      for (index_t t = 0; t < here; ++t) {
        index_t const row = t * from.token_stride;
        for (index_t block = 0; block < blocks_; ++block) {
          index_t const to = first * blocks_ + block * here + t;
          std::memcpy(codes_.data() + to * block_columns, from.codes + (row + block) * block_columns, block_columns);
          scales_[to] = from.scales[row + block];
          starts_[to] = from.starts[row + block];
        }
      }
    });
  }

  [[nodiscard]] index_t tiles() const { return tiles_; }
  /// Tiles differ by at most one token.
  [[nodiscard]] index_t first_token(index_t tile) const { return tile * tokens_ / tiles_; }
  [[nodiscard]] int8_activations tile(index_t tile) const {
    index_t const at = first_token(tile) * blocks_, count = first_token(tile + 1) - first_token(tile);
    return {codes_.data() + at * block_columns, scales_.data() + at, starts_.data() + at, 1, count, nullptr};
  }

 private:
  index_t tokens_, blocks_, tiles_;
  buffer<std::int8_t> codes_;
  buffer<float> scales_;
  buffer<std::int32_t> starts_;
};

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
