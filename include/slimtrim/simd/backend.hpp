// The host backend with our own kernels for the hot loops; everything else is eigen_backend.
#pragma once

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/linalg/product.hpp>
#include <slimtrim/simd/attention.hpp>
#include <slimtrim/simd/dispatch.hpp>
#include <slimtrim/simd/gemm.hpp>
#include <slimtrim/simd/gemv.hpp>
#include <slimtrim/simd/interleaved_weight.hpp>
#include <slimtrim/simd/moe_layer.hpp>
#include <slimtrim/simd/rows.hpp>
#include <slimtrim/simd/rtn.hpp>
#include <slimtrim/simd/select.hpp>

#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// `activations = activation_kind::int8` rounds the activations of products with codes to 8 bits in blocks of 32, for
/// speed (bound: simd::rounded_activations); it is never chosen otherwise. `kernels`: null for those of the compiler's
/// flags, or what runtime_kernels() returned.
struct simd_options {
  activation_kind activations = activation_kind::floating;
  simd::kernel_table const* kernels = nullptr;
};

/// eigen_backend with fused products (gemv.hpp, gemm.hpp). Deterministic for any executor.
class simd_product_backend : public eigen_backend {
 public:
  /// Up to this many tokens weights are streamed past the tokens, beyond they are expanded into tiles.
  static constexpr index_t few_tokens = 2 * simd::few_tokens;

  explicit simd_product_backend(simd_options options = {})
      : simd_product_backend(nullptr, options, simd::static_kernels()) {}
  explicit simd_product_backend(executor& pieces_on, simd_options options = {})
      : simd_product_backend(&pieces_on, options, simd::static_kernels()) {}

  [[nodiscard]] simd::kernel_table const& kernels() const { return *kernels_; }
  [[nodiscard]] activation_kind activations() const { return activations_; }

  /// Y = X Wᵀ for a weight of any kind; shapes as slimtrim::product, which checks them. Codes and dense weights take
  /// kernels, prepared or not; anything else is expanded a few rows at a time.
  void product(matrix_view<float const> X, weight_view const& w, matrix_view<float> Y) const {
    if (X.extent(0) == 0 || Y.extent(1) == 0) return;
    weight_view const* const one = &w;
    products(X, std::span(&one, 1), std::span<matrix_view<float> const>(&Y, 1));
  }

  /// Several weights that take the same activations, which are made ready once.
  void products(matrix_view<float const> X, std::span<weight_view const* const> weights,
                std::span<matrix_view<float> const> outputs) const {
    std::vector<simd::panel_product> panels;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      weight_view const& w = *weights[i];
      if (auto const* ready = simd::panels_of(w)) {
        expects_equal(ready->lanes, kernels_->lanes, "simd_backend", "rows a panel of a weight prepared elsewhere");
        panels.push_back({{*ready, nullptr}, outputs[i]});
      } else if (X.extent(0) <= few_tokens && stream_rows(X, w, outputs[i])) {
        continue;
      } else if (auto const plan = plan_when_exact(w)) {
        panels.push_back({{*plan, &w}, outputs[i]});
      } else {
        slimtrim::product(static_cast<eigen_backend const&>(*this), X, w, outputs[i]);
      }
    }
    if (!panels.empty()) simd::multiply_panels(*kernels_, run_on(), panels, activations_, X, few_tokens);
  }

  /// The weight converted once into the layout of the kernels, in memory of this backend and its copies; the weight
  /// itself where it does not fit. Values do not change. Call it when a model is loaded.
  [[nodiscard]] weight prepare(weight const& w) const {
    auto converted = simd::interleave(w.view, kernels_->lanes, *arena_, run_on());
    return converted ? simd::as_weight(std::move(*converted)) : w;
  }

 private:
  simd_product_backend(executor* pieces_on, simd_options const& options, simd::kernel_table const& compiled)
      : eigen_backend(pieces_on != nullptr ? eigen_backend(*pieces_on) : eigen_backend()),
        kernels_(options.kernels != nullptr ? options.kernels : &compiled),
        activations_(options.activations), arena_(std::make_shared<simd::weight_arena>()) {}

  // Whether w is dense with contiguous rows, which few tokens meet in place.
  bool stream_rows(matrix_view<float const> X, weight_view const& w, matrix_view<float> Y) const {
    return std::visit(
        [&](auto const& view) {
          if constexpr (requires { view.strides; }) {
            if (view.stride(1) != 1 && view.extent(1) > 1) return false;
            using element = std::remove_const_t<std::remove_pointer_t<decltype(view.data)>>;
            simd::gemv_dense<element>(*kernels_, run_on(), view, X, Y);
            return true;
          } else {
            return false;
          }
        },
        w);
  }

  // Panels made on the fly convert float16 by its finite rule, so only prepared ones (which were looked at) may be so.
  [[nodiscard]] std::optional<simd::panel_view> plan_when_exact(weight_view const& w) const {
    if (std::holds_alternative<matrix_view<float16 const>>(w) || std::holds_alternative<masked_view<float16>>(w))
      return std::nullopt;
    return simd::plan_panels(w, kernels_->lanes);
  }

  simd::kernel_table const* kernels_;
  activation_kind activations_;
  std::shared_ptr<simd::weight_arena> arena_;
};

/// simd_product_backend with the fused members that are written over products: the backend to use.
class simd_backend : public simd_product_backend {
 public:
  using simd_product_backend::simd_product_backend;

  /// slimtrim::row_cosines in one pass over both matrices (simd/rows.hpp); that function checks extents.
  template <class T>
    requires(std::is_same_v<T, float> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>)
  void row_cosines(matrix_view<T const> X, matrix_view<T const> Y, vector_view<float> out) const {
    simd::row_cosines<simd_product_backend, T>(kernels(), *this, X, Y, out);
  }

  /// slimtrim::rtn_into, the same bytes, in one pass where simd/rtn.hpp covers the options.
  template <class T>
  void rtn_into(matrix_view<T const> W, quantize_options const& options, quantized_matrix& out,
                vector_view<float const> column_weights) const {
    if (simd::covers_rtn<T>(W, options)) return simd::rtn_into<T>(kernels(), run_on(), W, options, out);
    slimtrim::rtn_into(static_cast<eigen_backend const&>(*this), W, options, out, column_weights);
  }

  /// slimtrim::wanda_mask, the same bits, in one pass where simd/select.hpp covers the pattern.
  template <class T>
  [[nodiscard]] mask wanda_mask(matrix_view<T const> W, vector_view<float const> second_moments,
                                sparsity const& pattern) const {
    if (simd::covers_selection<T>(kernels(), W, pattern))
      return simd::wanda_mask<T>(kernels(), run_on(), W, second_moments, pattern);
    return slimtrim::wanda_mask(static_cast<eigen_backend const&>(*this), W, second_moments, pattern);
  }

  /// causal_attention of model/attention.hpp for few queries over a cache (simd/attention.hpp); false for any other.
  template <class Shape, class View>
  bool attend_few(Shape const& shape, matrix_view<float const> Q, View const& kept, index_t first_position,
                  matrix_view<float> Z) const {
    if (!simd::covers_attention(shape, Q, kept, Z)) return false;
    simd::attend_few(kernels(), run_on(), shape, Q, kept, first_position, Z);
    return true;
  }

  /// The MoE layer of model/moe.hpp for few tokens and prepared experts in two sweeps over the weights
  /// (simd/moe_layer.hpp); any other goes through the generic layer. Weights, Work: moe_weights, forward_workspace.
  template <class Weights, class Work>
  void moe_layer(Weights const& weights, matrix_view<float const> X, matrix_view<float> Y, Work& work) const {
    auto const& products = static_cast<simd_product_backend const&>(*this);
    bool const contiguous = Y.stride(1) == 1 || Y.extent(1) <= 1;
    if (!contiguous || !simd::covers_moe_layer(weights, X.extent(0), few_tokens)) {
      simd::detail::generic_moe_layer(products, weights, X, Y, work);
      return;
    }
    index_t const tokens = X.extent(0), experts = static_cast<index_t>(weights.experts.size());
    expects_equal(weights.router.rows(), experts, "moe_layer", "rows of the router");
    expects_equal(Y.extent(0), tokens, "moe_layer", "rows of the result");
    auto const logits = work.logits.shape(tokens, experts), scores = work.probabilities.shape(tokens, experts);
    auto const indices = work.indices.shape(tokens, weights.rule.top_k);
    auto const factors = work.weights.shape(tokens, weights.rule.top_k);
    slimtrim::product(products, X, weights.router.view, logits);
    vector_view<float const> bias;
    if (!weights.selection_bias.empty()) bias = vector_view<float const>(weights.selection_bias.data(), experts);
    route(products, as_const(logits), weights.rule, bias, indices, factors, scores);
    group_by_expert(as_const(indices), experts, work.groups);
    simd::fused_experts(kernels(), run_on(), activations(), eigen_backend{}, weights, work.groups, as_const(factors), X,
                        Y);
  }
};

static_assert(host_backend<simd_backend> && fuses_product<simd_backend>);

}  // namespace v0
}  // namespace slimtrim
