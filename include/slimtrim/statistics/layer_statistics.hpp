// Everything that one pass tells about one MoE layer: the argument of every criterion of kind `statistics`.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/statistics/exact_array.hpp>
#include <slimtrim/statistics/expert_norms.hpp>
#include <slimtrim/statistics/expert_outputs.hpp>
#include <slimtrim/statistics/neuron_energies.hpp>
#include <slimtrim/statistics/router_statistics.hpp>
#include <slimtrim/statistics/similarity_statistics.hpp>

#include <optional>

namespace slimtrim {
inline namespace v0 {

/// Extents of a layer, and which of the larger tables to keep.
struct layer_statistics_options {
  index_t experts = 0;
  index_t hidden = 0;        ///< needed with `outputs`
  index_t intermediate = 0;  ///< needed with `neurons`
  bool outputs = false;      ///< per-channel mean and variance of expert outputs (MoNE, HC-SMoE, REAM)
  bool neurons = false;      ///< energies of intermediate neurons (neuron_drop)
};

/// What `layer_statistics` sums of the tokens of a window, worked out elsewhere. Parts that a layer has not (routing), or that
/// were not asked for (outputs, neurons), are empty.
struct layer_sums {
  similarity_values similarity{};
  std::optional<router_sums> router{};
  std::optional<expert_norm_sums> norms{};
  std::optional<expert_output_sums> outputs{};
  std::optional<neuron_sums> neurons{};
};

/// The accumulators of one layer as one accumulator. Experts are numbered as in the original model.
class layer_statistics : public accumulator<layer_statistics> {
 public:
  explicit layer_statistics(layer_statistics_options const& options) : router(options.experts), norms(options.experts) {
    if (options.outputs) outputs.emplace(options.experts, options.hidden);
    if (options.neurons) neurons.emplace(options.experts, options.intermediate);
  }

  router_statistics router;
  expert_norms norms;
  similarity_statistics similarity;
  std::optional<expert_outputs> outputs;
  std::optional<neuron_energies> neurons;

  /// Adds to an open window. Throws `error` when sums are of other extents.
  void add(layer_sums const& sums) {
    similarity.add(sums.similarity);
    if (sums.router) router.add(*sums.router);
    if (sums.norms) norms.add(*sums.norms);
    if (outputs && sums.outputs) outputs->add(*sums.outputs);
    if (neurons && sums.neurons) neurons->add(*sums.neurons);
  }

  [[nodiscard]] index_t experts() const { return router.experts(); }

  template <class Self, class F>
  static void each(Self& self, F&& f) {
    self.router.visit(f);
    self.norms.visit(f);
    self.similarity.visit(f);
    if (self.outputs) self.outputs->visit(f);
    if (self.neurons) self.neurons->visit(f);
  }
};

}  // namespace v0
}  // namespace slimtrim
