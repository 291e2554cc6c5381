// The table of similarities between the inputs of any two decoder layers: which run of blocks changes least.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/similarity/cosine.hpp>
#include <slimtrim/statistics/exact_array.hpp>

#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Sums over tokens of cos(h_l, h_m) for l < m, with h_l the residual stream that enters layer l and h_L what leaves
/// the last. Memory 24 L^2 bytes; the caller holds the L + 1 streams of one window.
class block_similarity : public accumulator<block_similarity> {
 public:
  explicit block_similarity(index_t layers)
      : layers_(layers),
        tokens_("blocks.tokens", {1}, fixed_point_scale::counts),
        cosine_("blocks.cosine", {layers, layers}, fixed_point_scale::ratios) {}

  /// Adds the streams of an open window. streams: layers + 1 matrices [tokens, hidden].
  /// Cost layers^2 / 2 row cosines of [tokens, hidden].
  template <host_backend B>
  void add(B const& backend, std::span<matrix_view<float const> const> streams) {
    expects_equal(static_cast<long long>(streams.size()), layers_ + 1, "block_similarity", "number of streams");
    auto const tokens = static_cast<std::size_t>(streams[0].extent(0));
    tokens_.add(0, static_cast<double>(tokens));
    values_.resize(tokens);
    for (index_t l = 0; l < layers_; ++l)
      for (index_t gap = 1; l + gap <= layers_; ++gap) {
        row_cosines(backend, streams[static_cast<std::size_t>(l)], streams[static_cast<std::size_t>(l + gap)],
                    vector_view<float>(values_.data(), tokens));
        double sum = 0;
        for (float const value : values_) sum += static_cast<double>(value);
        cosine_.add(l * layers_ + gap - 1, sum);
      }
  }

  [[nodiscard]] index_t layers() const { return layers_; }
  /// Mean cos(h_first, h_{first + count}): the similarity around the run of `count` blocks that starts at `first`.
  /// Throws `error` when the run leaves the model.
  [[nodiscard]] double around(index_t first, index_t count) const {
    expects(first >= 0 && count >= 1 && first + count <= layers_, "block_similarity",
            "run of blocks: expected it inside the model");
    double const n = tokens_.value(0);
    return n > 0 ? cosine_.value(first * layers_ + count - 1) / n : 0.0;
  }

  template <class Self, class F>
  static void each(Self& self, F&& f) {
    f(self.tokens_);
    f(self.cosine_);
  }

 private:
  index_t layers_;
  std::vector<float> values_;
  exact_array tokens_, cosine_;
};

}  // namespace v0
}  // namespace slimtrim
