// How much a decoder layer, its attention and its MoE change the residual stream.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/similarity/angular.hpp>
#include <slimtrim/similarity/cosine.hpp>
#include <slimtrim/statistics/exact_array.hpp>

#include <cmath>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The five matrices that one decoder layer makes of a window, each [tokens, hidden], in host memory.
struct layer_activations {
  matrix_view<float const> block_input{};   ///< x
  matrix_view<float const> residual{};      ///< x' = x + attention(norm(x)), the stream that the MoE output joins
  matrix_view<float const> moe_input{};     ///< norm(x')
  matrix_view<float const> moe_output{};    ///< MoE(norm(x')), shared experts included
  matrix_view<float const> block_output{};  ///< x' + MoE(norm(x'))
};

/// What `similarity_statistics` wants of each token of a window, worked out elsewhere. All: [tokens].
struct similarity_values {
  std::vector<float> block;             ///< cos(block_input, block_output)
  std::vector<float> attention;         ///< cos(block_input, residual)
  std::vector<float> moe_without_norm;  ///< cos(moe_input, moe_output)
  std::vector<float> moe;               ///< cos(residual, block_output)
  std::vector<float> residual_square;   ///< |residual|²
  std::vector<float> moe_output_square;
};

/// Sums over tokens of cosines and norms of one layer. Memory constant, plus one row of scratch a token.
/// Cosines and norms in the backend's accumulator type, sums in double within a window, exact across windows.
class similarity_statistics : public accumulator<similarity_statistics> {
 public:
  similarity_statistics()
      : tokens_("similarity.tokens", {1}, fixed_point_scale::counts),
        block_("similarity.block", {1}, fixed_point_scale::ratios),
        attention_("similarity.attention", {1}, fixed_point_scale::ratios),
        moe_("similarity.moe", {1}, fixed_point_scale::ratios),
        moe_without_norm_("similarity.moe_without_norm", {1}, fixed_point_scale::ratios),
        block_angle_("similarity.block_angle", {1}, fixed_point_scale::ratios),
        attention_angle_("similarity.attention_angle", {1}, fixed_point_scale::ratios),
        moe_angle_("similarity.moe_angle", {1}, fixed_point_scale::ratios),
        residual_norm_("similarity.residual_norm", {1}, fixed_point_scale::magnitudes),
        residual_square_("similarity.residual_square", {1}, fixed_point_scale::magnitudes),
        moe_output_norm_("similarity.moe_output_norm", {1}, fixed_point_scale::magnitudes),
        moe_output_square_("similarity.moe_output_square", {1}, fixed_point_scale::magnitudes) {}

  /// Adds the tokens of an open window; afterwards `change()` holds each token's 1 - cos(x', x' + MoE).
  template <host_backend B>
  void add(B const& backend, layer_activations const& x) {
    auto const tokens = static_cast<std::size_t>(x.residual.extent(0));
    auto const cosines = [&](std::vector<float>& to, matrix_view<float const> a, matrix_view<float const> b) {
      to.resize(tokens);
      row_cosines(backend, a, b, vector_view<float>(to.data(), tokens));
    };
    auto const squares = [&](std::vector<float>& to, matrix_view<float const> a) {
      to.resize(tokens);
      backend.row_dots(a, a, vector_view<float>(to.data(), tokens));
    };
    cosines(values_.block, x.block_input, x.block_output);
    cosines(values_.attention, x.block_input, x.residual);
    cosines(values_.moe_without_norm, x.moe_input, x.moe_output);
    cosines(values_.moe, x.residual, x.block_output);
    squares(values_.residual_square, x.residual);
    squares(values_.moe_output_square, x.moe_output);
    add(values_);
  }

  /// The same of what was worked out elsewhere. Throws `error` when its parts are not of one length.
  void add(similarity_values const& of) {
    auto const tokens = static_cast<index_t>(of.moe.size());
    tokens_.add(0, static_cast<double>(tokens));
    auto const add_cosines = [&](exact_array& to, exact_array* angle, std::vector<float> const& values) {
      expects_equal(static_cast<index_t>(values.size()), tokens, "similarity_statistics", "tokens");
      double sum = 0, angles = 0;
      for (float const value : values) {
        sum += static_cast<double>(value);
        if (angle != nullptr) angles += angular_distance(static_cast<double>(value));
      }
      to.add(0, sum);
      if (angle != nullptr) angle->add(0, angles);
    };
    auto const add_norms = [&](exact_array& norm, exact_array& square, std::vector<float> const& values) {
      expects_equal(static_cast<index_t>(values.size()), tokens, "similarity_statistics", "tokens");
      double norms = 0, squares = 0;
      for (float const value : values) {
        norms += std::sqrt(static_cast<double>(value));
        squares += static_cast<double>(value);
      }
      norm.add(0, norms);
      square.add(0, squares);
    };
    add_cosines(block_, &block_angle_, of.block);
    add_cosines(attention_, &attention_angle_, of.attention);
    add_cosines(moe_without_norm_, nullptr, of.moe_without_norm);
    add_cosines(moe_, &moe_angle_, of.moe);
    change_.resize(of.moe.size());
    for (std::size_t t = 0; t < of.moe.size(); ++t) change_[t] = 1.0 - static_cast<double>(of.moe[t]);
    add_norms(residual_norm_, residual_square_, of.residual_square);
    add_norms(moe_output_norm_, moe_output_square_, of.moe_output_square);
  }

  /// s_t = 1 - cos(x'_t, x'_t + MoE_t) of the tokens added last: [tokens].
  [[nodiscard]] std::span<double const> change() const { return change_; }

  [[nodiscard]] double tokens() const { return tokens_.value(0); }
  /// Mean cos(x, x' + MoE(norm(x'))): Block Drop.
  [[nodiscard]] double block() const { return mean(block_); }
  /// Mean cos(x, x'): attention drop.
  [[nodiscard]] double attention() const { return mean(attention_); }
  /// Mean cos(x', x' + MoE(norm(x'))): Layer Drop, arXiv 2406.02500 eq. 9.
  [[nodiscard]] double moe() const { return mean(moe_); }
  /// Mean cos(norm(x'), MoE(norm(x'))): eq. 8, for comparison.
  [[nodiscard]] double moe_without_norm() const { return mean(moe_without_norm_); }
  /// Mean angular distances of the same three pairs, in units of pi: arXiv 2403.17887 eq. 6.
  [[nodiscard]] double block_angle() const { return mean(block_angle_); }
  [[nodiscard]] double attention_angle() const { return mean(attention_angle_); }
  [[nodiscard]] double moe_angle() const { return mean(moe_angle_); }
  /// Mean |x'|.
  [[nodiscard]] double residual_norm() const { return mean(residual_norm_); }
  /// Mean |x'|^2.
  [[nodiscard]] double residual_square() const { return mean(residual_square_); }
  /// Mean |MoE(norm(x'))|.
  [[nodiscard]] double moe_output_norm() const { return mean(moe_output_norm_); }
  /// Mean |MoE(norm(x'))|^2.
  [[nodiscard]] double moe_output_square() const { return mean(moe_output_square_); }

  template <class Self, class F>
  static void each(Self& self, F&& f) {
    f(self.tokens_);
    f(self.block_);
    f(self.attention_);
    f(self.moe_);
    f(self.moe_without_norm_);
    f(self.block_angle_);
    f(self.attention_angle_);
    f(self.moe_angle_);
    f(self.residual_norm_);
    f(self.residual_square_);
    f(self.moe_output_norm_);
    f(self.moe_output_square_);
  }

 private:
  [[nodiscard]] double mean(exact_array const& sum) const { return tokens() > 0 ? sum.value(0) / tokens() : 0.0; }

  similarity_values values_;
  std::vector<double> change_;
  exact_array tokens_, block_, attention_, moe_, moe_without_norm_, block_angle_, attention_angle_, moe_angle_,
      residual_norm_, residual_square_, moe_output_norm_, moe_output_square_;
};

}  // namespace v0
}  // namespace slimtrim
