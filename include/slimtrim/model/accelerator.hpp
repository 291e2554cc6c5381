// What a host backend may hand over to another device: halves of a decoder layer, logits, and large products.
//
// The pipeline stays on the host: streams, statistics and decisions. A backend that lends itself an accelerator asks it
// first; what the accelerator does not take is done as without one.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/model/decoder_layer.hpp>
#include <slimtrim/model/layer_hooks.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/slim/quantize/gptq.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <concepts>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

namespace slimtrim {
inline namespace v0 {

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

  /// Whether `hooks.sums` are added up; what is added stays with the accelerator until collect_sums adds it to the
  /// matrices, which live until then.
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

  /// slimtrim::gptq where the device takes it, nothing where the host is to do it.
  [[nodiscard]] virtual std::optional<gptq_result> gptq(matrix_view<float const> W, matrix_view<float const> hessian,
                                                        gptq_options const& options, matrix_view<float const> judge) {
    static_cast<void>(W), static_cast<void>(hessian), static_cast<void>(options), static_cast<void>(judge);
    return std::nullopt;
  }
};

/// A backend that may have an accelerator at hand.
template <class B>
concept has_accelerator = requires(B const& b) {
  { b.lent() } -> std::convertible_to<accelerator*>;
};

/// Calls `hand_over(hooks)` with what `observer` wants of a layer: its sums where `device` adds up and it wants nothing else,
/// else its hooks. An observer may have `bool sums(gram_sums&)`, false where it needs the rows.
template <class Observer, class HandOver>
void with_hooks(accelerator& device, Observer& observer, index_t layer, HandOver&& hand_over) {
  if constexpr (requires(gram_sums& sums) { observer.sums(sums); }) {
    gram_sums sums;
    if (device.adds_up() && observer.sums(sums)) {
      layer_hooks hooks;
      hooks.sums = &sums;
      return hand_over(hooks);
    }
  }
  hand_over(hooks_of(observer, layer));
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

  /// Takes slimtrim::gptq over: on the device where that takes it, else as the base.
  template <class T>
  [[nodiscard]] gptq_result gptq(matrix_view<T const> W, matrix_view<float const> hessian, gptq_options const& options,
                                 matrix_view<float const> judge) const {
    if constexpr (std::is_same_v<T, float>)
      if (device_ != nullptr)
        if (auto done = device_->gptq(W, hessian, options, judge)) return std::move(*done);
    return slimtrim::gptq(static_cast<Base const&>(*this), W, hessian, options, judge);
  }

 private:
  accelerator* device_;
};

}  // namespace v0
}  // namespace slimtrim
