// Activations made ready for the kernels: padded to whole blocks, in the order in which a kernel meets them, and for the
// 8-bit mode quantised.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/simd/kernel_table.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <optional>
#include <string>

namespace slimtrim {
inline namespace v0 {

/// How a product treats its float activations: as they are, or rounded to 8 bits in blocks of 32 columns.
enum class activation_kind { floating, int8 };

namespace simd {

namespace detail {

inline constexpr float tiny_activation = 0x1.0p-80F;
inline constexpr float huge_activation = 0x1.0p+100F;

// One row of X as contiguous floats: itself, or copied into `scratch`.
[[nodiscard]] inline float const* contiguous_row(matrix_view<float const> X, index_t t, buffer<float>& scratch) {
  float const* const from = X.data + t * X.stride(0);
  if (X.stride(1) == 1 || X.extent(1) <= 1) return from;
  if (scratch.size() < static_cast<std::size_t>(X.extent(1))) scratch = buffer<float>(X.extent(1));
  for (index_t k = 0; k < X.extent(1); ++k) scratch[k] = from[k * X.stride(1)];
  return scratch.data();
}

// The largest magnitude of x as the bits of a float, which order as magnitudes do; NaN is above infinity.
[[nodiscard]] inline std::uint32_t largest_bits(float const* x, index_t count) {
  std::uint32_t largest = 0;
  for (index_t k = 0; k < count; ++k) {
    std::uint32_t const bits = bits_as<std::uint32_t>(x[k]) & 0x7fffffffU;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

}  // namespace detail

/// Float activations of a few tokens for `exact_few` or `dense_few`.
///
/// A token whose largest magnitude is below 2^-80 or above 2^100 is scaled by 2^64 or 2^-64 (exact), so that neither the
/// powers of two that ride on activations of codes nor sums of codes leave the range of float; `restore` undoes it.
class exact_activations {
 public:
  /// X: [tokens, columns] for panels laid out as `plan`.
  exact_activations(matrix_view<float const> X, panel_view const& plan)
      : exact_activations(X, round_up(std::max<index_t>(plan.blocks, 1) * block_columns, 64),
                          plan.quantised() ? plan.groups() : 0) {
    buffer<float> scratch;
    for (index_t t = 0; t < X.extent(0); ++t) {
      float* const to = values_.data() + t * stride_;
      copy_row(X, t, to, scratch);
      if (!plan.quantised()) continue;
      for (index_t g = 0; g < groups_; ++g) {
        index_t const first = g * plan.group_blocks * block_columns;
        index_t const last = std::min(first + plan.group_blocks * block_columns, plan.blocks * block_columns);
        double sum = 0;
        for (index_t k = first; k < last; k += block_columns) sum += block_sum(to + k);
        sums_[t * groups_ + g] = static_cast<float>(sum);
      }
      scale_places(to, plan);
    }
  }

  /// X: [tokens, columns] for row-major weights of `kind` and kernels with the given period of places.
  exact_activations(matrix_view<float const> X, element_kind kind, index_t pair_period)
      : exact_activations(X, round_up(std::max<index_t>(X.extent(1), 1), 64), 0) {
    buffer<float> scratch, pairs(kind == element_kind::bfloat16_pairs ? pair_period : 0);
    for (index_t t = 0; t < X.extent(0); ++t) {
      float* const to = values_.data() + t * stride_;
      copy_row(X, t, to, scratch);
      if (pairs.empty()) continue;
      index_t const half = pair_period / 2;
      for (index_t k = 0; k < stride_; k += pair_period) {
        for (index_t i = 0; i < half; ++i) {
          pairs[i] = to[k + 2 * i];
          pairs[half + i] = to[k + 2 * i + 1];
        }
        std::copy_n(pairs.data(), pair_period, to + k);
      }
    }
  }

  /// Tokens first, first + 1, ... as the kernels take them.
  [[nodiscard]] float_activations from(index_t first) const {
    return {values_.data() + first * stride_, groups_ > 0 ? sums_.data() + first * groups_ : nullptr, stride_, groups_,
            nullptr};
  }
  /// The tokens in rows tokens[0], tokens[1], ...
  [[nodiscard]] float_activations of(std::int32_t const* tokens) const {
    return {values_.data(), sums_.data(), stride_, groups_, tokens};
  }

  /// Multiplies `rows` results of each token by what its activations were divided by. Result t is of the token in row
  /// tokens[t], or first + t where there are no `tokens`.
  void restore(output_rows out, index_t first, std::int32_t const* tokens, index_t count) const {
    if (!any_scaled_) return;
    for (index_t t = 0; t < count; ++t) {
      float const factor = factors_[tokens != nullptr ? tokens[t] : first + t];
      if (factor == 1.0F) continue;
      for (index_t r = 0; r < out.rows; ++r) out.data[t * out.token_stride + r * out.row_stride] *= factor;
    }
  }

 private:
  exact_activations(matrix_view<float const> X, index_t stride, index_t groups)
      : values_(X.extent(0) * stride), sums_(X.extent(0) * groups), factors_(X.extent(0)), stride_(stride),
        groups_(groups) {}

  void copy_row(matrix_view<float const> X, index_t t, float* to, buffer<float>& scratch) {
    index_t const columns = X.extent(1);
    std::copy_n(detail::contiguous_row(X, t, scratch), columns, to);
    std::fill(to + columns, to + stride_, 0.0F);
    float const largest = bits_as<float>(detail::largest_bits(to, columns));
    factors_[t] = 1.0F;
    if (largest > 0 && largest < detail::tiny_activation) factors_[t] = 0x1.0p-64F;
    if (largest > detail::huge_activation) factors_[t] = 0x1.0p64F;
    if (factors_[t] == 1.0F) return;
    any_scaled_ = true;
    for (index_t k = 0; k < columns; ++k) to[k] *= 1.0F / factors_[t];
  }

  static double block_sum(float const* x) {
    float part[8] = {};
    for (index_t k = 0; k < block_columns; k += 8)
      for (index_t i = 0; i < 8; ++i) part[i] += x[k + i];
    return (static_cast<double>(part[0]) + part[1]) + (static_cast<double>(part[2]) + part[3]) +
           ((static_cast<double>(part[4]) + part[5]) + (static_cast<double>(part[6]) + part[7]));
  }

  static void scale_places(float* x, panel_view const& plan) {
    float factor[8];
    index_t const bits = bits_of(plan.kind), places = 32 / bits;
    for (index_t i = 0; i < 8; ++i) {
      index_t const place = i % places;
      factor[i] = place == places - 1 ? 1.0F : 1.0F / static_cast<float>(std::uint32_t{1} << (place * bits));
    }
    for (index_t k = 0; k < plan.blocks * block_columns; k += 8)
      for (index_t i = 0; i < 8; ++i) x[k + i] *= factor[i];
  }

  buffer<float> values_;
  buffer<float> sums_;
  buffer<float> factors_;
  index_t stride_;
  index_t groups_;
  bool any_scaled_ = false;
};

/// Activations rounded to 8 bits: in each block of 32 columns, scale = max |x| / 127 and code = round(x / scale), ties to
/// even. So |x - scale code| <= max |x| / 254 (1 + 2^-20), and a product with weights W is off by at most
/// sum over blocks of max |x| / 254 * sum |W| over the block, plus float rounding. A block whose largest magnitude is
/// below 2^-100 counts as zero. Throws `numeric_error` on NaN and infinity.
class rounded_activations {
 public:
  rounded_activations(matrix_view<float const> X, panel_view const& plan, executor* run_on = nullptr)
      : blocks_(plan.blocks), codes_(X.extent(0) * plan.blocks * block_columns), scales_(X.extent(0) * plan.blocks),
        sums_(X.extent(0) * plan.blocks) {
    constexpr index_t tokens_a_piece = 8;
    parallel_for(X.extent(0) > 2 * tokens_a_piece ? run_on : nullptr, ceil_div(X.extent(0), tokens_a_piece),
                 [&](index_t piece) {
                   buffer<float> scratch;
                   index_t const last = std::min(X.extent(0), (piece + 1) * tokens_a_piece);
                   for (index_t t = piece * tokens_a_piece; t < last; ++t)
                     round_row(detail::contiguous_row(X, t, scratch), X.extent(1), t, plan.kind);
                 });
  }

  [[nodiscard]] int8_activations from(index_t first) const {
    return {codes_.data() + first * blocks_ * block_columns, scales_.data() + first * blocks_,
            sums_.data() + first * blocks_, blocks_, nullptr};
  }
  /// The tokens in rows tokens[0], tokens[1], ...
  [[nodiscard]] int8_activations of(std::int32_t const* tokens) const {
    return {codes_.data(), scales_.data(), sums_.data(), blocks_, tokens};
  }

 private:
  void round_row(float const* x, index_t columns, index_t t, element_kind kind) {
    for (index_t block = 0; block < blocks_; ++block) {
      index_t const count = std::min(block_columns, columns - block * block_columns);
      float padded[block_columns];
      float const* from = x + block * block_columns;
      if (count < block_columns) {
        std::fill(std::copy_n(from, count, padded), padded + block_columns, 0.0F);
        from = padded;
      }
      std::uint32_t const largest_bits = detail::largest_bits(from, block_columns);
      if (largest_bits >= 0x7f800000U)
        throw numeric_error("product: activations of token " + std::to_string(t) + ", columns from " +
                            std::to_string(block * block_columns) + ": expected finite numbers");
      float const largest = bits_as<float>(largest_bits);
      bool const counts = largest >= 0x1.0p-100F;
      float const inverse = counts ? 127.0F / largest : 0.0F;
      std::int32_t code[block_columns];
      std::int32_t sum = 0;
      for (index_t i = 0; i < block_columns; ++i) {
        // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the mantissa.
        code[i] = bits_as<std::int32_t>(from[i] * inverse + 12582912.0F) - 0x4b400000;
        sum += code[i];
      }
      index_t const at = t * blocks_ + block;
      std::int8_t* const to = codes_.data() + at * block_columns;
      if (kind == element_kind::codes4) {
        for (index_t word = 0; word < block_columns; word += 8)
          for (index_t i = 0; i < 4; ++i) {
            to[word + i] = static_cast<std::int8_t>(code[word + 2 * i]);
            to[word + 4 + i] = static_cast<std::int8_t>(code[word + 2 * i + 1]);
          }
      } else {
        for (index_t i = 0; i < block_columns; ++i) to[i] = static_cast<std::int8_t>(code[i]);
      }
      scales_[at] = counts ? largest / 127.0F : 0.0F;
      sums_[at] = static_cast<float>(sum);
    }
  }

  index_t blocks_;
  buffer<std::int8_t> codes_;
  buffer<float> scales_;
  buffer<float> sums_;
};

/// Activations ready for panels of one plan, exact or rounded: what a product with few tokens needs of its input.
class ready_activations {
 public:
  ready_activations(matrix_view<float const> X, panel_view const& plan, activation_kind kind, executor* run_on = nullptr)
      : kind_(plan.kind), group_blocks_(plan.group_blocks) {
    if (kind == activation_kind::int8 && plan.quantised()) {
      rounded_.emplace(X, plan, run_on);
    } else {
      exact_.emplace(X, plan);
    }
  }

  /// Whether panels of `plan` can take these activations.
  [[nodiscard]] bool suit(panel_view const& plan) const {
    return plan.kind == kind_ && (rounded_.has_value() || plan.group_blocks == group_blocks_);
  }

  /// out(t, r) for tokens first .. first + count - 1, or the rows `tokens` of X where given, and the panels of `view`
  /// from panel 0. `out.rows` bounds the rows.
  void multiply(kernel_table const& kernels, panel_view const& view, index_t panels, index_t first,
                std::int32_t const* tokens, index_t count, output_rows out) const {
    if (out.rows > panels * view.lanes) out.rows = panels * view.lanes;
    index_t const most = rounded_ ? int8_tokens : few_tokens;
    for (index_t t = 0; t < count; t += most) {
      index_t const now = std::min(most, count - t);
      output_rows to = out;
      to.data += t * out.token_stride;
      if (rounded_) {
        kernels.int8(view, 0, panels, tokens != nullptr ? rounded_->of(tokens + t) : rounded_->from(first + t), now, to);
      } else {
        kernels.exact_few(view, 0, panels, tokens != nullptr ? exact_->of(tokens + t) : exact_->from(first + t), now, to);
      }
    }
    if (exact_) exact_->restore(out, first, tokens, count);
  }

 private:
  element_kind kind_;
  index_t group_blocks_;
  std::optional<exact_activations> exact_;
  std::optional<rounded_activations> rounded_;
};

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
