// Weights in the layout that a backend's kernels read, converted once when a model is loaded to run.
#pragma once

#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/model/model.hpp>
#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/model/weight_source.hpp>

#include <concepts>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A backend that keeps weights in a layout of its own: `prepare(w)` has the same values as w.
template <class B>
concept prepares_weights = requires(B const& b, weight const& w) {
  { b.prepare(w) } -> std::same_as<weight>;
};

/// `source` with every packed matrix prepared for `backend`. Dense matrices stay views into the source, because kernels
/// stream them in place; so does the embedding, whose rows are looked up one by one.
///
/// Cost: each packed matrix is read and written once. The source's own pages are not needed any more once a layer is
/// loaded: `release` passes that on. `backend` and `source` must live as long as this.
template <prepares_weights B>
class prepared_weights final : public weight_source {
 public:
  prepared_weights(B const& backend, weight_source const& source) : backend_(backend), source_(source) {}

  [[nodiscard]] bool has(module_id id) const override { return source_.has(id); }
  [[nodiscard]] weight matrix(module_id id) const override {
    weight w = source_.matrix(id);
    bool const packed = std::holds_alternative<quantized_view<>>(w.view);
    return packed && id.role != module_role::embedding ? backend_.prepare(w) : w;
  }
  [[nodiscard]] std::vector<float> vector(module_id id) const override { return source_.vector(id); }
  void release(index_t layer) const override { source_.release(layer); }
  void prefetch(module_id id) const override { source_.prefetch(id); }

 private:
  B const& backend_;
  weight_source const& source_;
};

/// Every layer of `source`, ready to run on `backend`: prepared where the backend has a layout of its own, else as
/// `load_model(config, source)`. Errors of the source.
template <host_backend B>
[[nodiscard]] model load_model(B const& backend, model_config config, weight_source const& source) {
  if constexpr (prepares_weights<B>) {
    prepared_weights<B> const prepared(backend, source);
    model result{std::move(config), {}, {}};
    result.ends = load_ends(result.config, prepared);
    read_ahead ahead(source);
    for (index_t i = 0; i < result.config.layer_count(); ++i) {
      ahead.begin_layer(result.config, i + 1);
      result.layers.push_back(load_layer(result.config, prepared, i));
      source.release(i);
    }
    return result;
  } else {
    static_cast<void>(backend);
    return load_model(std::move(config), source);
  }
}

}  // namespace v0
}  // namespace slimtrim
