// What a host backend may hand over to another device: halves of a decoder layer, logits, and large products.
//
// The pipeline stays on the host: streams, statistics and decisions. A backend that lends itself an accelerator asks it
// first; what the accelerator does not take is done as without one.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/model/decoder_layer.hpp>
#include <slimtrim/model/layer_hooks.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/recovery/expert_fit.hpp>
#include <slimtrim/slim/quantize/awq.hpp>
#include <slimtrim/slim/quantize/gptq.hpp>
#include <slimtrim/slim/sparse/sparsegpt.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A down matrix that is to be fitted: which rows of the stream reach its expert, none twice, and what their hidden activations are
/// multiplied by (the router's weight, the token's count).
struct fitted_writer {
  index_t expert = -1;  ///< -1: the one that every token takes
  std::span<std::int32_t const> tokens{};
  std::span<float const> factors{};  ///< one a token
  matrix_view<float> weight{};       ///< [out, in], in place
};

/// A device with memory of its own. Members may be called from several threads at once; results do not depend on their
/// order. Weights are told apart by their storage, which a cache may keep alive.
class accelerator {
 public:
  accelerator() = default;
  accelerator(accelerator const&) = delete;
  accelerator& operator=(accelerator const&) = delete;
  virtual ~accelerator() = default;

  /// A layer, in place, for windows of `window` rows each from position 0: both halves, as far as the layer has them.
  /// X: [T, hidden].
  virtual void layer(model_config const& config, decoder_layer const& weights, matrix_view<float> X, index_t window,
                     layer_hooks const& hooks) = 0;
  /// The first half alone; without the hook attention_residual, which its caller calls. For windows of `window` rows
  /// each from position 0. X: [T, hidden].
  virtual void attention(model_config const& config, decoder_layer const& weights, matrix_view<float> X, index_t window,
                         layer_hooks const& hooks) = 0;
  /// The second half.
  virtual void feed_forward(model_config const& config, decoder_layer const& weights, matrix_view<float> X,
                            layer_hooks const& hooks) = 0;
  /// logits = norm(X) headᵀ.
  virtual void logits(model_config const& config, model_ends const& ends, matrix_view<float const> X,
                      matrix_view<float> logits) = 0;

  /// C = alpha A B + beta C, H += alpha Xᵀ X, where that pays; false where the host is to do it.
  [[nodiscard]] virtual bool gemm(float alpha, matrix_view<float const> A, matrix_view<float const> B, float beta,
                                  matrix_view<float> C) = 0;
  [[nodiscard]] virtual bool gram_update(float alpha, matrix_view<float const> X, matrix_view<float> H) = 0;

  /// Has the pages of host memory that many calls will read and write stay where they are until what is returned ends, so that
  /// copies need no detour; null where there is nothing to gain. The memory outlives what is returned.
  [[nodiscard]] virtual std::shared_ptr<void> fix_pages(std::span<std::byte> memory) {
    static_cast<void>(memory);
    return nullptr;
  }

  /// Whether `hooks.sums` are added up; what is added stays with the accelerator until collect_sums adds it to the
  /// matrices, which live until then. A half that runs for sums leaves X as it is.
  [[nodiscard]] virtual bool adds_up() const { return false; }
  virtual void collect_sums() {}
  /// H += sum over rows of n nᵀ, n = norm(x), until collect_sums; false where the host is to do it.
  [[nodiscard]] virtual bool add_normed_gram(std::span<float const> norm, double epsilon, matrix_view<float const> X,
                                             matrix_view<float> H) {
    static_cast<void>(norm), static_cast<void>(epsilon), static_cast<void>(X), static_cast<void>(H);
    return false;
  }

  /// A layer, in place, for one window from position 0, and what `wanted` sums of it; false, and nothing done, where the host is
  /// to do it. X: [T, hidden].
  [[nodiscard]] virtual bool statistics(model_config const& config, decoder_layer const& weights, matrix_view<float> X,
                                        layer_statistics_options const& wanted, layer_sums& sums) {
    static_cast<void>(config), static_cast<void>(weights), static_cast<void>(X), static_cast<void>(wanted);
    static_cast<void>(sums);
    return false;
  }

  /// Whether fit_experts takes a layer.
  [[nodiscard]] virtual bool fits_experts(decoder_layer const& weights) const {
    static_cast<void>(weights);
    return false;
  }
  /// residual_fit_experts for the down matrices of a layer, features made from X: [T, hidden], the stream before the layer's second
  /// half; residual: [T, hidden] and weights in place. With unit = 0 ridges are relative to the mean square of all features.
  /// Only where fits_experts says so.
  virtual std::vector<residual_fit_report> fit_experts(model_config const& config, decoder_layer const& weights,
                                                       matrix_view<float const> X, std::span<fitted_writer const> writers,
                                                       matrix_view<float> residual, std::span<char const> held_out,
                                                       expert_fit_options const& options) {
    static_cast<void>(config), static_cast<void>(weights), static_cast<void>(X), static_cast<void>(residual);
    static_cast<void>(held_out), static_cast<void>(options);
    return std::vector<residual_fit_report>(writers.size());
  }

  /// H⁻¹ B in place and the factor of H⁻¹, as tensor_backend has them, where that pays; nothing where the host is to do it.
  [[nodiscard]] virtual std::optional<bool> solve_positive_definite(matrix_view<float> H, matrix_view<float> B) {
    static_cast<void>(H), static_cast<void>(B);
    return std::nullopt;
  }
  [[nodiscard]] virtual std::optional<bool> inverse_factor(matrix_view<float const> H, matrix_view<float> R) {
    static_cast<void>(H), static_cast<void>(R);
    return std::nullopt;
  }

  /// slimtrim::gptq where the device takes it, nothing where the host is to do it.
  [[nodiscard]] virtual std::optional<gptq_result> gptq(matrix_view<float const> W, matrix_view<float const> hessian,
                                                        gptq_options const& options, matrix_view<float const> judge) {
    static_cast<void>(W), static_cast<void>(hessian), static_cast<void>(options), static_cast<void>(judge);
    return std::nullopt;
  }
  /// The same for slimtrim::awq, slimtrim::search_awq_scales and slimtrim::sparsegpt.
  [[nodiscard]] virtual std::optional<quantized_matrix> awq(matrix_view<float const> W, matrix_view<float const> hessian,
                                                            std::vector<float> const& scales, awq_options const& options,
                                                            matrix_view<float const> judge, index_t* rows_kept) {
    static_cast<void>(W), static_cast<void>(hessian), static_cast<void>(scales), static_cast<void>(options);
    static_cast<void>(judge), static_cast<void>(rows_kept);
    return std::nullopt;
  }
  [[nodiscard]] virtual std::optional<awq_scales> search_awq_scales(std::vector<awq_member<float>> const& members,
                                                                    awq_options const& options,
                                                                    std::vector<index_t> const& tied) {
    static_cast<void>(members), static_cast<void>(options), static_cast<void>(tied);
    return std::nullopt;
  }
  [[nodiscard]] virtual std::optional<sparsegpt_result> sparsegpt(matrix_view<float const> W, matrix_view<float const> hessian,
                                                                  sparsegpt_options const& options) {
    static_cast<void>(W), static_cast<void>(hessian), static_cast<void>(options);
    return std::nullopt;
  }
};

/// A backend that may have an accelerator at hand.
template <class B>
concept has_accelerator = requires(B const& b) {
  { b.lent() } -> std::convertible_to<accelerator*>;
};

/// Whether `observer` has `device` add up all that it wants of a half, which then leaves the rows as they are.
template <class Observer>
[[nodiscard]] bool wants_only_sums(accelerator const& device, Observer& observer, gram_sums& sums) {
  if constexpr (requires { observer.sums(sums); }) return device.adds_up() && observer.sums(sums);
  else return false;
}

/// Calls `hand_over(hooks)` with what `observer` wants of a layer: its sums where `device` adds up and it wants nothing else,
/// else its hooks. An observer may have `bool sums(gram_sums&)`, false where it needs the rows.
template <class Observer, class HandOver>
void with_hooks(accelerator& device, Observer& observer, index_t layer, HandOver&& hand_over) {
  gram_sums sums;
  if (!wants_only_sums(device, observer, sums)) return hand_over(hooks_of(observer, layer));
  layer_hooks hooks;
  hooks.sums = &sums;
  hand_over(hooks);
}

/// `Base` with an accelerator for what pays, or without one (null), and then exactly as `Base`.
template <host_backend Base>
class accelerated : public Base {
 public:
  explicit accelerated(Base base, accelerator* device = nullptr) : Base(std::move(base)), device_(device) {}

  [[nodiscard]] accelerator* lent() const { return device_; }

  template <class T>
  void gemm(T alpha, std::type_identity_t<matrix_view<T const>> A, std::type_identity_t<matrix_view<T const>> B, T beta,
            std::type_identity_t<matrix_view<T>> C) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr && device_->gemm(alpha, A, B, beta, C)) return;
    Base::template gemm<T>(alpha, A, B, beta, C);
  }
  template <class T>
  void gram_update(T alpha, std::type_identity_t<matrix_view<T const>> X,
                   std::type_identity_t<matrix_view<T>> H) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr && device_->gram_update(alpha, X, H)) return;
    Base::template gram_update<T>(alpha, X, H);
  }

  template <class T>
  [[nodiscard]] bool solve_positive_definite(matrix_view<T> H, matrix_view<T> B) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr)
        if (auto const done = device_->solve_positive_definite(H, B)) return *done;
    return Base::template solve_positive_definite<T>(H, B);
  }
  template <class T>
  [[nodiscard]] bool inverse_factor(std::type_identity_t<matrix_view<T const>> H, matrix_view<T> R) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr)
        if (auto const done = device_->inverse_factor(H, R)) return *done;
    return Base::template inverse_factor<T>(H, R);
  }

  /// Takes slimtrim::gptq over: on the device where that takes it, else as the base.
  template <class T>
  [[nodiscard]] gptq_result gptq(matrix_view<T const> W, matrix_view<float const> hessian, gptq_options const& options,
                                 matrix_view<float const> judge) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr)
        if (auto done = device_->gptq(W, hessian, options, judge)) return std::move(*done);
    return slimtrim::gptq(static_cast<Base const&>(*this), W, hessian, options, judge);
  }
  /// The same for slimtrim::awq and slimtrim::search_awq_scales.
  template <class T>
  [[nodiscard]] quantized_matrix awq(matrix_view<T const> W, matrix_view<float const> hessian, std::vector<float> const& scales,
                                     awq_options const& options, matrix_view<float const> judge, index_t* rows_kept) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr)
        if (auto done = device_->awq(W, hessian, scales, options, judge, rows_kept)) return std::move(*done);
    return slimtrim::awq(static_cast<Base const&>(*this), W, hessian, scales, options, judge, rows_kept);
  }
  template <class T>
  [[nodiscard]] awq_scales search_awq_scales(std::vector<awq_member<T>> const& members, awq_options const& options,
                                             std::vector<index_t> const& tied) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr)
        if (auto done = device_->search_awq_scales(members, options, tied)) return std::move(*done);
    return slimtrim::search_awq_scales(static_cast<Base const&>(*this), members, options, tied);
  }
  /// What slimtrim::sparsegpt asks for first; nothing where it is to do the sweep, by the products and factors above.
  template <class T>
  [[nodiscard]] std::optional<sparsegpt_result> sparsegpt(matrix_view<T const> W, matrix_view<float const> hessian,
                                                          sparsegpt_options const& options) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr) return device_->sparsegpt(W, hessian, options);
    return std::nullopt;
  }

 private:
  accelerator* device_;
};

}  // namespace v0
}  // namespace slimtrim
