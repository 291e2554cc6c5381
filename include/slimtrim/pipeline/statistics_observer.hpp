// What one layer shows of a window, handed to the accumulators of calibration.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/model/observer.hpp>
#include <slimtrim/model/workspace.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace detail {

// Watches one layer on one window after another and adds each to `statistics`. scaled_inputs: the router's weights multiply the
// experts' inputs, so that outputs carry them already and count with weight 1.
template <host_backend B>
class statistics_observer {
 public:
  statistics_observer(B const& backend, layer_statistics_options const& options, bool scaled_inputs)
      : backend_(backend), statistics_(options), scaled_inputs_(scaled_inputs) {}

  void block_input(index_t, matrix_view<float const> X) {
    copy(X, input_);
    hidden_ = X.extent(1);
    has_feed_forward_ = false;
    routed_ = false;
  }
  void attention_residual(index_t, matrix_view<float const> X) { copy(X, residual_); }
  void feed_forward_input(index_t, matrix_view<float const> N) {
    copy(N, normalised_);
    has_feed_forward_ = true;
  }
  void router_result(index_t, routing_result const& r) {
    copy(r.probabilities, probabilities_);
    copy(r.weights, weights_);
    auto const indices = indices_.shape(r.indices.extent(0), r.indices.extent(1));
    for (index_t t = 0; t < indices.extent(0); ++t)
      for (index_t slot = 0; slot < indices.extent(1); ++slot) {
        indices(t, slot) = r.indices(t, slot);
        if (scaled_inputs_) weights_.view(t, slot) = indices(t, slot) < 0 ? 0.0F : 1.0F;
      }
    routing_ = {as_const(probabilities_.view), as_const(indices), as_const(weights_.view)};
    statistics_.norms.begin_window(indices.extent(0), indices.extent(1));
    routed_ = true;
  }
  void expert_hidden(index_t, expert_batch const& batch, matrix_view<float const> H) {
    if (!statistics_.neurons) return;
    if (scaled_inputs_) ones_.assign(batch.weights.size(), 1.0F);
    statistics_.neurons->add(backend_, batch.expert, H, scaled_inputs_ ? std::span<float const>(ones_) : batch.weights);
  }
  void expert_output(index_t, expert_batch const& batch, matrix_view<float const> O) {
    slots_.clear();
    for (std::int32_t const token : batch.tokens) {
      std::int32_t slot = 0;
      while (routing_.indices(token, slot) != static_cast<std::int32_t>(batch.expert)) ++slot;
      slots_.push_back(slot);
    }
    statistics_.norms.add_outputs(backend_, batch.expert, batch.tokens, slots_, O);
    if (statistics_.outputs) statistics_.outputs->add(backend_, batch.expert, O);
  }
  void feed_forward_output(index_t, matrix_view<float const> Y) { copy(Y, added_); }
  void block_output(index_t, matrix_view<float const> X) {
    if (!has_feed_forward_) {
      // A dropped MoE adds nothing; its cosine is that of equal vectors.
      copy(as_const(residual_.view), normalised_);
      auto const zeros = added_.shape(X.extent(0), X.extent(1));
      for (index_t t = 0; t < zeros.extent(0); ++t) std::fill_n(&zeros(t, 0), hidden_, 0.0F);
    }
    statistics_.similarity.add(backend_, {as_const(input_.view), as_const(residual_.view), as_const(normalised_.view),
                                          as_const(added_.view), X});
    if (routed_) {
      statistics_.router.add(routing_);
      statistics_.norms.add(routing_, statistics_.similarity.change());
    }
    statistics_.commit_window();
  }

  /// A window that was summed elsewhere.
  void add(layer_sums const& sums) {
    statistics_.add(sums);
    statistics_.commit_window();
  }

  [[nodiscard]] layer_statistics& statistics() { return statistics_; }

 private:
  struct held_matrix {
    scratch_matrix<float> memory;
    matrix_view<float> view{};
    matrix_view<float> shape(index_t n, index_t m) { return view = memory.shape(n, m); }
  };
  static void copy(matrix_view<float const> from, held_matrix& to) {
    auto const out = to.shape(from.extent(0), from.extent(1));
    for (index_t t = 0; t < from.extent(0); ++t)
      for (index_t j = 0; j < from.extent(1); ++j) out(t, j) = from(t, j);
  }

  B const& backend_;
  layer_statistics statistics_;
  bool scaled_inputs_;
  index_t hidden_ = 0;
  bool has_feed_forward_ = false;
  bool routed_ = false;
  held_matrix input_, residual_, normalised_, added_, probabilities_, weights_;
  scratch_matrix<std::int32_t> indices_;
  routing_view routing_{};
  std::vector<std::int32_t> slots_;
  std::vector<float> ones_;
};

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
