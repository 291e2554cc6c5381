#include <pipeline/support.hpp>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/pipeline/recipe_text.hpp>
#include <slimtrim/pipeline/statistics_file.hpp>
#include <slimtrim/pipeline/synth.hpp>
#include <support/temporary_folder.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

namespace pipeline_tests {

namespace {

template <class F>
auto with_backend(index_t threads, F&& f) {
  if (threads <= 1) return f(eigen_backend());
  thread_pool pool(threads);
  return f(eigen_backend(pool));
}

token_windows windows_of(std::string const& name, index_t count, index_t sequence, index_t first) {
  token_windows all;
  if (has_shared_data()) {
    all = load_windows(shared_file(name).native(), {.tokens = (first + count) * sequence, .sequence = sequence}, 2048, {});
  } else {
    all.sequence = sequence;
    all.source = "pseudo-random";
    std::uint32_t state = name == "wikitext-2/train.u16" ? 1U : 2U;
    for (index_t i = 0; i < (first + count) * sequence; ++i) {
      state = state * 1664525U + 1013904223U;
      all.tokens.push_back((state >> 16) % 2048U);
    }
  }
  return part_of(all, first, count);
}

class changed_weights final : public weight_source {
 public:
  changed_weights(std::shared_ptr<weight_source const> inner, std::function<bool(module_id, matrix_view<float>)> change)
      : inner_(std::move(inner)), change_(std::move(change)) {}
  [[nodiscard]] bool has(module_id id) const override { return inner_->has(id); }
  [[nodiscard]] weight matrix(module_id id) const override {
    weight whole = inner_->matrix(id);
    tensor<float, 2> values = expand(whole.view);
    if (!change_(id, values.view())) return whole;
    return own_weight(std::move(values));
  }
  [[nodiscard]] std::vector<float> vector(module_id id) const override { return inner_->vector(id); }
  void release(index_t layer) const override { inner_->release(layer); }

 private:
  std::shared_ptr<weight_source const> inner_;
  std::function<bool(module_id, matrix_view<float>)> change_;
};

}  // namespace

void write_synthetic(std::filesystem::path const& folder, synth_shape const& shape) {
  synth_options options;
  options.shape = shape;
  synthesize(folder, options);
}

void copy_bundled(std::filesystem::path const& folder) {
  std::filesystem::create_directories(folder);
  for (std::string const name : {"config.json", "model.safetensors", "tokenizer.json"})
    std::filesystem::copy_file(bundled_folder() / name, folder / name);
}

void poke(std::filesystem::path const& folder, std::string const& tensor, index_t at, std::uint16_t raw) {
  std::uint64_t position = 0;
  {
    checkpoint const files = checkpoint::open(folder);
    auto const whole = files.bytes(files.tensors().front()).data();
    // The mapping's beginning is not public: find the place by the tensors' order in the file.
    auto const here = files.bytes(tensor).data();
    std::byte const* first = whole;
    std::uint64_t data = 0;
    for (tensor_info const& each : files.tensors()) {
      first = std::min(first, files.bytes(each).data());
      data += each.bytes;
    }
    position = std::filesystem::file_size(folder / "model.safetensors") - data + static_cast<std::uint64_t>(here - first) +
               2 * static_cast<std::uint64_t>(at);
  }
  std::fstream file(folder / "model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(position));
  file.write(reinterpret_cast<char const*>(&raw), 2);
}

opened_model changed_model(opened_model const& model, std::function<bool(module_id, matrix_view<float>)> change) {
  opened_model result = model;
  result.weights = std::make_shared<changed_weights>(model.weights, std::move(change));
  return result;
}

std::string bytes_of(model_statistics const& statistics) {
  temporary_folder const folder;
  save_statistics(statistics, folder.path() / "s");
  return folder.read("s");
}

std::filesystem::path bundled_folder() { return SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral"; }

opened_model const& bundled() {
  static opened_model const model = open_model(bundled_folder());
  return model;
}

std::filesystem::path shared_file(std::string const& name) { return std::filesystem::path(SLIMTRIM_SHARED_DATA) / name; }
bool has_shared_data() { return std::filesystem::exists(shared_file("wikitext-2/valid.u16")); }
token_windows train_windows(index_t count, index_t sequence, index_t first) {
  return windows_of("wikitext-2/train.u16", count, sequence, first);
}
token_windows valid_windows(index_t count, index_t sequence, index_t first) {
  return windows_of("wikitext-2/valid.u16", count, sequence, first);
}

evaluation evaluate_model(opened_model const& model, opened_model const* base, token_windows const& windows, index_t threads,
                          evaluate_options const& options) {
  return with_backend(threads, [&](eigen_backend const& b) { return evaluate(b, model, base, windows, options); });
}

model_statistics calibrate_model(opened_model const& model, token_windows const& windows, index_t threads,
                                 calibrate_options const& options) {
  return with_backend(threads, [&](eigen_backend const& b) { return calibrate(b, model, windows, options); });
}

layer_statistics observe_layer(model_config const& config, decoder_layer const& layer, matrix_view<float> X) {
  layer_statistics_options options;
  options.experts = static_cast<index_t>(layer.moe->experts.size());
  options.hidden = X.extent(1);
  options.intermediate = layer.moe->experts.front().swiglu.width();
  options.outputs = options.neurons = true;
  eigen_backend const backend;
  detail::statistics_observer<eigen_backend> observer(backend, options, layer.moe->rule.weight_scales_input);
  forward_workspace work;
  forward_layer(backend, config, layer, 0, X, work, observer);
  return std::move(observer.statistics());
}

plan decide_recipe(recipe const& r, decide_inputs const& inputs, decide_options const& options) {
  return decide(eigen_backend(), r, inputs, options);
}

plan decide_plan(std::string_view text, decide_inputs const& inputs, decide_options const& options) {
  return decide_recipe(parse_recipe(text), inputs, options);
}

search_result search_model(opened_model const& model, token_windows const& windows, search_options const& options) {
  return search(eigen_backend(), model, nullptr, windows, options);
}

opened_model slim_in_memory(opened_model const& model, plan const& p, token_windows const& windows) {
  return slimmed_model(eigen_backend(), model, p, windows);
}

double metered_kl(opened_model const& base, opened_model const& model, token_windows const& windows, index_t same_layers,
                  std::uint64_t bytes) {
  eigen_backend const backend;
  kl_meter meter(backend, base, windows, bytes);
  return meter(model, same_layers);
}

measured_loss reconstruction_loss_of(opened_model const& model, token_windows const& windows, index_t layer,
                                     std::vector<index_t> const& kept) {
  measured_loss found;
  collect_reconstruction(eigen_backend(), model, windows, {}, [&](index_t i, reconstruction_tokens& tokens, double unit) {
    if (i == layer) found = {tokens.loss(eigen_backend(), kept), unit};
  });
  return found;
}

compress_result compress_model(opened_model const& model, plan const& p, std::filesystem::path const& out,
                               compress_options const& options, index_t threads) {
  return with_backend(threads, [&](eigen_backend const& b) { return compress(b, model, p, out, options); });
}

void slim_on_windows(opened_model const& model, plan const& p, token_windows const& windows, slimmed_sink const& sink,
                     calibrated_options const& options, index_t threads, folded_sink const& folded) {
  output_modules const modules = list_output_modules(*model.files, model.config, p, scale_type::bfloat16);
  with_backend(threads, [&](eigen_backend const& b) { slim_calibrated(b, model, p, modules, windows, sink, options, folded); });
}

slim_result slim_one(weight_view const& W, slimmed_module const& m, input_moments* moments) {
  return slim_matrix(eigen_backend(), W, m, moments);
}

tensor<float, 2> rtn_values(weight_view const& W, packed_scheme const& scheme, scale_rule scale) {
  tensor<float, 2> const dense = expand(W);
  quantized_matrix const q = rtn(eigen_backend(), dense.view(), quantizer_of(scheme, scale));
  return expand(weight_view(q.view()));
}

void run_streams(opened_model const& model, window_streams& streams, index_t threads) {
  with_backend(threads, [&](eigen_backend const& b) {
    workspace_pool workspaces;
    for (index_t i = 0; i < model.config.layer_count(); ++i)
      streams.run_layer(b, model.config, load_layer(model.config, *model.weights, i), i, workspaces);
  });
}

plan slim_plan(model_config const& config, std::string_view text) {
  plan p = keep_everything(config);
  recipe const parsed = parse_recipe(text);
  p.recipe = to_string(parsed);
  p.slimming = parsed.steps;
  return p;
}

std::map<std::string, std::string> files_of(std::filesystem::path const& folder) {
  std::map<std::string, std::string> files;
  for (auto const& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path().filename().string()] = {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  return files;
}

}  // namespace pipeline_tests
