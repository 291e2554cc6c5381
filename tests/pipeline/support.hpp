// What the tests of the pipeline share: the bundled model, windows of tokens, and the operations that are templates on a
// backend, compiled once in support.cpp so that each test file stays cheap to build.
#pragma once

#include <slimtrim/pipeline/calibrate.hpp>
#include <slimtrim/pipeline/compress.hpp>
#include <slimtrim/pipeline/decide.hpp>
#include <slimtrim/pipeline/evaluate.hpp>
#include <slimtrim/pipeline/search.hpp>

#include <slimtrim/pipeline/synth_shape.hpp>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pipeline_tests {

using namespace slimtrim;

/// The folder of the model in examples/models, and the model, opened once.
[[nodiscard]] std::filesystem::path bundled_folder();
[[nodiscard]] opened_model const& bundled();

/// A synthetic checkpoint, and the bundled one as a folder of its own whose files may be damaged.
void write_synthetic(std::filesystem::path const& folder, synth_shape const& shape);
void copy_bundled(std::filesystem::path const& folder);
/// Sets element `at` of a BF16 tensor of a one-file checkpoint to the bits `raw`.
void poke(std::filesystem::path const& folder, std::string const& tensor, index_t at, std::uint16_t raw);

/// The model with matrices changed where `change` says so (it returns true and has worked on the values in place).
[[nodiscard]] opened_model changed_model(opened_model const& model, std::function<bool(module_id, matrix_view<float>)> change);

/// Whether the data that tests share is there: without it windows are pseudo-random tokens.
[[nodiscard]] bool has_shared_data();
[[nodiscard]] std::filesystem::path shared_file(std::string const& name);
/// Windows of the training or the validation text; `first` skips windows of the same length.
[[nodiscard]] token_windows train_windows(index_t count, index_t sequence, index_t first = 0);
[[nodiscard]] token_windows valid_windows(index_t count, index_t sequence, index_t first = 0);

// The pipeline on eigen_backend with `threads` threads (1: no pool).
[[nodiscard]] evaluation evaluate_model(opened_model const& model, opened_model const* base, token_windows const& windows,
                                        index_t threads = 1, evaluate_options const& options = {});
[[nodiscard]] model_statistics calibrate_model(opened_model const& model, token_windows const& windows, index_t threads = 1,
                                               calibrate_options const& options = {});
/// Statistics of one layer without attention on one window X [T, hidden]; X becomes the stream behind the layer.
[[nodiscard]] layer_statistics observe_layer(model_config const& config, decoder_layer const& layer, matrix_view<float> X);
[[nodiscard]] plan decide_plan(std::string_view recipe, decide_inputs const& inputs, decide_options const& options = {});
[[nodiscard]] plan decide_recipe(recipe const& r, decide_inputs const& inputs, decide_options const& options = {});
[[nodiscard]] search_result search_model(opened_model const& model, token_windows const& windows, search_options const& options);
[[nodiscard]] opened_model slim_in_memory(opened_model const& model, plan const& p, token_windows const& windows);
/// KL of `model` from `base` by a kl_meter, which may start behind the first `same_layers` layers.
[[nodiscard]] double metered_kl(opened_model const& base, opened_model const& model, token_windows const& windows,
                                index_t same_layers = 0, std::uint64_t bytes = std::uint64_t{1} << 29);
/// What layer `layer` of the model loses on the windows when only `kept` stay, and the mean |x'|^2 there.
struct measured_loss {
  double loss = 0;
  double unit = 0;
};
[[nodiscard]] measured_loss reconstruction_loss_of(opened_model const& model, token_windows const& windows, index_t layer,
                                                   std::vector<index_t> const& kept);
compress_result compress_model(opened_model const& model, plan const& p, std::filesystem::path const& out,
                               compress_options const& options = {}, index_t threads = 1);
void slim_on_windows(opened_model const& model, plan const& p, token_windows const& windows, slimmed_sink const& sink,
                     calibrated_options const& options = {}, index_t threads = 1,
                     folded_sink const& folded = [](module_id, matrix_view<float const>) {});
[[nodiscard]] slim_result slim_one(weight_view const& W, slimmed_module const& m, input_moments* moments = nullptr);
/// What rtn makes of W, expanded.
[[nodiscard]] tensor<float, 2> rtn_values(weight_view const& W, packed_scheme const& scheme, scale_rule scale);
/// Streams of windows through all layers of the model in one go.
void run_streams(opened_model const& model, window_streams& streams, index_t threads = 1);

/// The plan that only slims: the recipe's steps on everything.
[[nodiscard]] plan slim_plan(model_config const& config, std::string_view recipe);
/// The bytes of the statistics' file.
[[nodiscard]] std::string bytes_of(model_statistics const& statistics);
/// Names and bytes of a folder's files.
[[nodiscard]] std::map<std::string, std::string> files_of(std::filesystem::path const& folder);
/// what() of the error E that `f` throws; "nothing thrown" or "another error: ..." otherwise.
template <class E, class F>
[[nodiscard]] std::string message_of(F&& f) {
  try {
    f();
  } catch (E const& e) {
    return e.what();
  } catch (std::exception const& e) {
    return std::string("another error: ") + e.what();
  }
  return "nothing thrown";
}
[[nodiscard]] inline bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace pipeline_tests
