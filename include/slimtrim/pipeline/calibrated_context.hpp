// What the parts of the calibrated pass share: the model in its two states, the streams of the calibration windows, which
// module is to become what, and where finished modules go.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/pipeline/layer_moments.hpp>
#include <slimtrim/pipeline/output_modules.hpp>
#include <slimtrim/pipeline/planned_model.hpp>
#include <slimtrim/pipeline/slim_matrix.hpp>
#include <slimtrim/pipeline/window_streams.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct calibrated_options {
  bool sequential = true;              ///< later layers see the changed outputs of earlier ones
  bool affinity = true;                ///< Hessians of expert inputs weighted by the gate: x g instead of x
  std::uint64_t hessian_bytes = std::uint64_t{2} << 30;  ///< of the experts in flight together
  std::uint64_t joint_bytes = std::uint64_t{2} << 30;    ///< Gram matrix of a joint fit at most; beyond, expert by expert
  int fit_sweeps = 2;                  ///< of the fit expert by expert
  residual_fit_options fit{};
  progress_callback progress{};
};

/// Receives each finished module.
using slimmed_sink = std::function<void(slimmed_module const&, slim_result const&)>;
/// Receives what stays dense but takes AWQ's channel scales: norms as [1, n], routers and other readers as [out, in], by the
/// module of the input; values of the tensor's storage type.
using folded_sink = std::function<void(module_id, matrix_view<float const>)>;

/// Whether a slim step of the module brings channel scales (AWQ's first half).
[[nodiscard]] inline bool wants_scales(slimmed_module const* m) {
  return m != nullptr && m->scheme && std::any_of(m->steps.begin(), m->steps.end(), [](step const& s) {
           return is_quantization(s.method) && s.quantization.scales != channel_scales::none;
         });
}

namespace detail {

template <host_backend B>
struct calibrated_context {
  calibrated_context(B const& on, opened_model const& model, plan const& p, output_modules const& modules,
                     token_windows const& windows, calibrated_options const& given, slimmed_sink const& out,
                     folded_sink const& out_folded)
      : backend(on),
        input(model),
        planned(planned_model(model, p)),
        decided(p),
        passed_through(modules.passed_through),
        options(given),
        sink(out),
        folded(out_folded),
        changed(load_ends(model.config, *model.weights), windows, 0, windows.count()),
        windows_a_batch(std::clamp<index_t>(stream_batch_tokens / windows.sequence, 1,
                                            std::max<index_t>(windows.count() / 8, 1))) {
    for (step const& s : p.slimming) {
      options.sequential = options.sequential && s.sequential;
      options.affinity = options.affinity && s.affinity;
    }
    for (auto s = p.slimming.rbegin(); s != p.slimming.rend(); ++s)
      if (!s->ridges.empty()) options.fit.ridges = s->ridges;
    for (slimmed_module const& m : modules.slimmed) {
      modules_[key(m.from)] = &m;
      fits = fits || wants_fit(&m);
    }
    if (fits || !options.sequential) original.emplace(changed.clone());
    changed.lend_to(backend);
    if (original) original->lend_to(backend);
  }

  using module_key = std::tuple<int, index_t, index_t>;
  [[nodiscard]] static module_key key(module_id id) { return {static_cast<int>(id.role), id.layer, id.expert}; }
  [[nodiscard]] slimmed_module const* find(module_role role, index_t layer, index_t expert = 0) const {
    auto const at = modules_.find(key({role, layer, expert}));
    return at == modules_.end() ? nullptr : at->second;
  }
  [[nodiscard]] static bool wants_fit(slimmed_module const* m) {
    if (m == nullptr) return false;
    bool const writes = m->from.role == module_role::output || m->from.role == module_role::down ||
                        m->from.role == module_role::shared_down || m->from.role == module_role::dense_down;
    if (!writes) return false;
    for (step const& s : m->steps) {
      if (s.method == method::recover || s.fit == fit_rule::residual) return true;
      if (s.fit == fit_rule::automatic && needs_data(s) && s.method != method::awq) return true;
    }
    return false;
  }
  [[nodiscard]] static bool wants_hessian(slimmed_module const* m) {
    if (m == nullptr) return false;
    return std::any_of(m->steps.begin(), m->steps.end(),
                       [](step const& s) { return s.method != method::recover && needs_data(s); });
  }

  // Calls piece(first_window, windows, X of the changed stream, held_out) batch by batch; products inside use the executor.
  template <class Piece>
  void for_batches(Piece&& piece) {
    index_t const n = windows_a_batch, batches = ceil_div(changed.count(), n);
    for (index_t b = 0; b < batches; ++b) {
      index_t const first = b * n, count = std::min(n, changed.count() - first);
      piece(first, count, rows(changed.all(), first * changed.sequence(), count * changed.sequence()), judges(first));
    }
  }
  // Every fourth batch of windows chooses ridges and is not fitted to, when there are four batches.
  [[nodiscard]] bool judges(index_t window) const {
    return ceil_div(changed.count(), windows_a_batch) >= 4 && window / windows_a_batch % 4 == 3;
  }
  [[nodiscard]] std::vector<token_sequence> sequences(index_t count) const {
    return std::vector<token_sequence>(static_cast<std::size_t>(count), token_sequence{changed.sequence(), 0, nullptr});
  }
  [[nodiscard]] matrix_view<float const> original_rows(index_t first, index_t count) {
    return rows(original->all(), first * changed.sequence(), count * changed.sequence());
  }

  // How much each token of a batch counts, as token_counts has it of the original stream where that stands now; empty, which
  // means one each, where no step fits.
  [[nodiscard]] std::vector<float> counts_of(index_t first, index_t count) {
    return fits ? token_counts(backend, original_rows(first, count)) : std::vector<float>();
  }

  // Rows on which a half can run for `observer` while X stays as it is: X itself where nothing will write there.
  template <class Observer>
  [[nodiscard]] matrix_view<float> spared(matrix_view<float> X, Observer& observer, tensor<float, 2>& copy) const {
    if constexpr (has_accelerator<B>) {
      gram_sums sums;
      if (backend.lent() != nullptr && wants_only_sums(*backend.lent(), observer, sums)) return X;
    }
    copy = tensor<float, 2>(X.extent(0), X.extent(1));
    copy_rows(as_const(X), copy.view());
    return copy.view();
  }

  // Runs attention on all batches, which stay as they are; `prepare(first, windows, held_out)` may set the observer up.
  template <class Observer, class Prepare>
  void watch_attention(decoder_layer const& layer, Observer& observer, Prepare&& prepare) {
    for_batches([&](index_t first, index_t count, matrix_view<float> X, bool held_out) {
      prepare(first, count, held_out);
      tensor<float, 2> copy;
      auto const s = sequences(count);
      auto const work = workspaces.take();
      forward_attention(backend, planned.config, layer, 0, spared(X, observer, copy), std::span<token_sequence const>(s), *work,
                        observer);
    });
    collect_sums();
  }
  // The same for the feed-forward part; `after(X)` sees the stream behind the layer, where the observer wants rows.
  template <class Observer, class Prepare, class After>
  void watch_feed_forward(decoder_layer const& layer, Observer& observer, Prepare&& prepare, After&& after) {
    for_batches([&](index_t first, index_t count, matrix_view<float> X, bool held_out) {
      prepare(first, count, held_out);
      tensor<float, 2> copy;
      auto const rows = spared(X, observer, copy);
      auto const work = workspaces.take();
      forward_feed_forward(backend, planned.config, layer, 0, rows, *work, observer);
      after(as_const(rows));
    });
    collect_sums();
  }

  // What an accelerator has added up for the matrices of the pass that just ended.
  void collect_sums() const {
    if constexpr (has_accelerator<B>)
      if (backend.lent() != nullptr) backend.lent()->collect_sums();
  }

  /// Sum of x xᵀ over all tokens of the normalised stream.
  [[nodiscard]] input_moments normed_moments(std::vector<float> const& norm) {
    input_moments moments;
    moments.hessian = zero_moments(input.config.hidden);
    for_batches([&](index_t, index_t, matrix_view<float> X, bool) {
      moments.tokens += static_cast<double>(X.extent(0));
      if constexpr (has_accelerator<B>)
        if (backend.lent() != nullptr &&
            backend.lent()->add_normed_gram(norm, input.config.rms_epsilon, as_const(X), moments.hessian.view()))
          return;
      tensor<float, 2> N(X.extent(0), X.extent(1));
      rms_norm(backend, X, norm, input.config.rms_epsilon, N.view());
      backend.gram_update(1.0F, as_const(N.view()), moments.hessian.view());
    });
    collect_sums();
    return moments;
  }

  [[nodiscard]] index_t expert_of(index_t i, std::size_t e) const { return decided.layer(i).experts[e]; }
  [[nodiscard]] index_t experts_in_flight(index_t columns, std::size_t experts) const {
    auto const one = static_cast<std::uint64_t>(columns) * static_cast<std::uint64_t>(columns) * sizeof(float);
    return std::clamp<index_t>(static_cast<index_t>(std::min<std::uint64_t>(options.hessian_bytes / std::max<std::uint64_t>(one, 1), 1U << 30)), 1,
                               std::max<index_t>(static_cast<index_t>(experts), 1));
  }

  // Slims one module (if it is to be) from values that may have been fitted, hands it out and returns what now stands there.
  [[nodiscard]] weight finish(slimmed_module const* m, weight const& now, input_moments* moments,
                              ordered_json const& fit_report = {}) {
    if (m == nullptr) return now;
    slim_result result;
    try {
      result = slim_matrix(backend, now.view, *m, moments);
    } catch (input_error const& e) {
      throw input_error(input.files->place(), "tensor '" + module_name(*input.config.family, m->from) + "': " + e.what());
    }
    if (auto const note = notes.find(key(m->from)); note != notes.end()) result.report["scales"] = note->second;
    if (!fit_report.is_null() && !fit_report.empty()) result.report["fit"] = fit_report;
    sink(*m, result);
    return slimmed_weight(result);
  }

  B const& backend;
  opened_model const& input;
  opened_model planned;
  plan const& decided;
  std::vector<std::string> const& passed_through;
  calibrated_options options;
  slimmed_sink const& sink;
  folded_sink const& folded;
  window_streams changed;
  std::optional<window_streams> original{};
  bool fits = false;
  index_t windows_a_batch;
  workspace_pool workspaces{};
  std::map<module_key, ordered_json> notes{};  ///< what folding has to say about a module

 private:
  std::map<module_key, slimmed_module const*> modules_{};
};

[[nodiscard]] inline ordered_json fit_json(residual_fit_report const& r) {
  return ordered_json{{"changed", r.changed}, {"ridge", r.ridge},
                      {"residual", r.energy}, {"left", r.error},
                      {"held_out_residual", r.held_out_energy}, {"held_out_left", r.held_out_error}};
}

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
