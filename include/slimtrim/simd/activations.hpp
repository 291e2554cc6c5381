// Activations made ready for the kernels: padded to whole blocks, in the order in which a kernel meets them, or rounded
// to 8 bits.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/simd/kernel_table.hpp>
#include <slimtrim/simd/rounded_activations.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// How a product treats its float activations: as they are, or rounded to 8 bits in blocks of 32 columns.
enum class activation_kind { floating, int8 };

namespace simd {

namespace detail {

inline constexpr float tiny_activation = 0x1.0p-80F;
inline constexpr float huge_activation = 0x1.0p+100F;

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
  exact_activations(matrix_view<float const> X, panel_view const& plan, executor* run_on = nullptr)
      : exact_activations(X, round_up(std::max<index_t>(plan.blocks, 1) * block_columns, 64),
                          plan.quantised() ? plan.groups() : 0) {
    constexpr index_t tokens_a_piece = 8;
    parallel_for(X.extent(0) > 2 * tokens_a_piece ? run_on : nullptr, ceil_div(X.extent(0), tokens_a_piece),
                 [&](index_t piece) {
                   buffer<float> scratch;
                   index_t const last = std::min(X.extent(0), (piece + 1) * tokens_a_piece);
                   for (index_t t = piece * tokens_a_piece; t < last; ++t) prepare(X, t, plan, scratch);
                 });
    find_scaled();
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
    find_scaled();
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
    for (index_t k = 0; k < columns; ++k) to[k] *= 1.0F / factors_[t];
  }

  void find_scaled() {
    any_scaled_ = std::any_of(factors_.begin(), factors_.end(), [](float factor) { return factor != 1.0F; });
  }

  void prepare(matrix_view<float const> X, index_t t, panel_view const& plan, buffer<float>& scratch) {
    float* const to = values_.data() + t * stride_;
    copy_row(X, t, to, scratch);
    if (!plan.quantised()) return;
    for (index_t g = 0; g < groups_; ++g) {
      index_t const first = g * plan.group_blocks * block_columns;
      index_t const last = std::min(first + plan.group_blocks * block_columns, plan.blocks * block_columns);
      double sum = 0;
      for (index_t k = first; k < last; k += block_columns) sum += block_sum(to + k);
      sums_[t * groups_ + g] = static_cast<float>(sum);
    }
    scale_places(to, plan);
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

/// Activations ready for panels of one plan, exact or rounded: what a product with few tokens needs of its input.
class ready_activations {
 public:
  ready_activations(kernel_table const& kernels, matrix_view<float const> X, panel_view const& plan,
                    activation_kind kind, executor* run_on = nullptr)
      : kernels_(kernels), kind_(plan.kind), blocks_(plan.blocks), group_blocks_(plan.group_blocks) {
    if (kind == activation_kind::int8 && plan.quantised()) {
      rounded_.emplace(kernels, X, plan, run_on);
    } else {
      exact_.emplace(X, plan, run_on);
    }
  }

  /// Room for `tokens` rows in 8 bits, to be filled by `round`.
  ready_activations(kernel_table const& kernels, index_t tokens, panel_view const& plan)
      : kernels_(kernels), kind_(plan.kind), blocks_(plan.blocks), group_blocks_(plan.group_blocks) {
    rounded_.emplace(kernels, tokens, plan);
  }
  /// As rounded_activations::round.
  void round(index_t t, index_t first, float const* x, index_t count) { rounded_->round(kernels_, t, first, x, count); }

  /// Whether panels of `plan` can take these activations.
  [[nodiscard]] bool suit(panel_view const& plan) const {
    if (rounded_) return rounded_->suit(kernels_, plan);
    return plan.kind == kind_ && plan.blocks == blocks_ && plan.group_blocks == group_blocks_;
  }

  /// out(t, r) for tokens first .. first + count - 1, or the rows `tokens` of X where given, and the panels of `view`
  /// from panel 0. `out.rows` bounds the rows.
  void multiply(panel_view const& view, index_t panels, index_t first,
                std::int32_t const* tokens, index_t count, output_rows out) const {
    if (out.rows > panels * view.lanes) out.rows = panels * view.lanes;
    index_t const most = rounded_ ? int8_tokens : few_tokens;
    for (index_t t = 0; t < count; t += most) {
      index_t const now = std::min(most, count - t);
      output_rows to = out;
      to.data += t * out.token_stride;
      if (rounded_) {
        kernels_.int8(view, 0, panels, tokens != nullptr ? rounded_->of(tokens + t) : rounded_->from(first + t), now, to);
      } else {
        kernels_.exact_few(view, 0, panels, tokens != nullptr ? exact_->of(tokens + t) : exact_->from(first + t), now, to);
      }
    }
    if (exact_) exact_->restore(out, first, tokens, count);
  }

 private:
  kernel_table const& kernels_;
  element_kind kind_;
  index_t blocks_, group_blocks_;
  std::optional<exact_activations> exact_;
  std::optional<rounded_activations> rounded_;
};

/// Activations that several weights share, made ready once for every plan that needs its own.
class shared_activations {
 public:
  shared_activations(kernel_table const& kernels, matrix_view<float const> X, activation_kind kind,
                     executor* run_on = nullptr)
      : kernels_(kernels), X_(X), kind_(kind), run_on_(run_on) {}

  [[nodiscard]] ready_activations const& ready_for(panel_view const& plan) {
    for (auto const& each : all_)
      if (each->suit(plan)) return *each;
    all_.push_back(std::make_unique<ready_activations>(kernels_, X_, plan, kind_, run_on_));
    return *all_.back();
  }

 private:
  kernel_table const& kernels_;
  matrix_view<float const> X_;
  activation_kind kind_;
  executor* run_on_;
  std::vector<std::unique_ptr<ready_activations>> all_;
};

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
