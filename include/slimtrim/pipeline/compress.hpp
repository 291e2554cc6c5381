// The main job: one streaming pass that writes the model a plan describes.
//
// Nothing is held but one matrix at a time (one decoder layer and the calibration tokens' activations when a step needs
// data). Everything goes to OUT.partial and gets its final name in one rename.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/core/progress.hpp>
#include <slimtrim/io/atomic_folder.hpp>
#include <slimtrim/io/sharded_writer.hpp>
#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/pipeline/calibrated_pass.hpp>
#include <slimtrim/pipeline/compress_journal.hpp>
#include <slimtrim/pipeline/fingerprint.hpp>
#include <slimtrim/pipeline/mask_file.hpp>
#include <slimtrim/pipeline/model_statistics.hpp>
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/output_config.hpp>
#include <slimtrim/pipeline/output_modules.hpp>
#include <slimtrim/pipeline/plan.hpp>
#include <slimtrim/pipeline/plan_file.hpp>
#include <slimtrim/pipeline/planned_model.hpp>
#include <slimtrim/pipeline/slim_matrix.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct compress_options {
  std::string format{};  ///< of packed weights; empty: the input's, else compressed-tensors
  std::uint64_t most_shard_bytes = 5'000'000'000;
  bool masks = false;    ///< also write `masks.bitmask`: which weights pruning kept (mask_file.hpp)
  token_windows const* data = nullptr;  ///< calibration windows, for the steps that work on tokens
  calibrated_options calibrated{};
  /// Continue what a stopped run of the same job left in OUT.partial, and leave the parts when this one stops.
  bool resume = false;
  progress_callback progress{};
};

/// What a compression did, besides the files.
struct compress_result {
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  std::uint64_t mask_bytes = 0;               ///< of `masks.bitmask`, not part of bytes_out; 0: there is none
  std::vector<std::string> notes{};           ///< who loads the result
  std::vector<std::string> passed_through{};  ///< tensors that the family does not know, copied untouched
  ordered_json slimmed = ordered_json::array();  ///< one object per slimmed module
  index_t resumed_layers = 0;                    ///< taken over from a stopped run
};

namespace detail {

[[nodiscard]] inline std::span<std::byte const> matrix_bytes(void const* data, std::size_t bytes) {
  return {static_cast<std::byte const*>(data), bytes};
}

/// Copies a tensor, or some rows of it, in constant memory.
class tensor_copier {
 public:
  void operator()(checkpoint const& from, copied_tensor const& copy, sharded_writer& writer) {
    std::uint64_t const bytes = copy.source.bytes;
    if (!copy.rows) {
      for (std::uint64_t at = 0; at < bytes || at == 0; at += block) {
        auto const part = std::span(memory_).first(static_cast<std::size_t>(std::min<std::uint64_t>(block, bytes - at)));
        from.read(copy.source, at, part);
        writer.write(copy.name, at, part);
        if (bytes == 0) break;
      }
      return;
    }
    std::uint64_t const row = copy.source.shape[0] > 0 ? bytes / static_cast<std::uint64_t>(copy.source.shape[0]) : 0;
    std::vector<std::byte> one(static_cast<std::size_t>(row));
    std::uint64_t at = 0;
    for (index_t const r : *copy.rows) {
      from.read(copy.source, static_cast<std::uint64_t>(r) * row, one);
      writer.write(copy.name, at, one);
      at += row;
    }
  }

 private:
  static constexpr std::uint64_t block = std::uint64_t{4} << 20;
  std::vector<std::byte> memory_ = std::vector<std::byte>(static_cast<std::size_t>(block));
};

// Writes all of a tensor, several pieces at a time: for quick recipes, handing bytes to the system is most of the work.
inline void write_in_pieces(executor* run_on, sharded_writer& writer, std::string const& name, std::span<std::byte const> bytes) {
  constexpr std::size_t piece = std::size_t{1} << 19;
  if (bytes.size() <= piece) return writer.write(name, bytes);
  parallel_for(run_on, ceil_div(static_cast<index_t>(bytes.size()), static_cast<index_t>(piece)), [&](index_t i) {
    std::size_t const at = static_cast<std::size_t>(i) * piece;
    writer.write(name, at, bytes.subspan(at, std::min(piece, bytes.size() - at)));
  });
}

[[nodiscard]] inline tensor_description described(copied_tensor const& copy) {
  tensor_description tensor = copy.source;
  tensor.name = copy.name;
  if (copy.rows) {
    index_t const before = tensor.shape[0];
    tensor.shape[0] = static_cast<index_t>(copy.rows->size());
    if (before > 0) tensor.bytes = tensor.bytes / static_cast<std::uint64_t>(before) * copy.rows->size();
  }
  return tensor;
}

/// The instruction set of this build: results of builds for others may differ in the last bit.
[[nodiscard]] constexpr std::string_view instruction_set() {
#if defined(__AVX512F__)
  return "x86-64 avx512";
#elif defined(__AVX2__)
  return "x86-64 avx2";
#elif defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "generic";
#endif
}

// The format of the output's packed weights, or null when there are none.
[[nodiscard]] inline std::shared_ptr<packed_format const> output_format(opened_model const& input, plan const& p,
                                                                        std::string const& wanted) {
  bool const quantises = std::any_of(p.slimming.begin(), p.slimming.end(),
                                     [](step const& s) { return is_quantization(s.method); });
  if (input.format) {
    if (!wanted.empty() && wanted != input.format->method())
      throw usage_error("--format " + wanted + ": the input is packed as " + std::string(input.format->method()) +
                        ", and both cannot stand in one model");
    return input.format;
  }
  if (!quantises) return nullptr;
  auto format = find_packed_format(wanted.empty() ? "compressed-tensors" : wanted);
  if (!format) throw usage_error("--format: expected compressed-tensors, awq or gptq, found " + wanted);
  return format;
}

// Names everything that the bytes of a calibrated output depend on.
[[nodiscard]] inline std::string job_of(opened_model const& input, plan const& p, compress_options const& options) {
  calibrated_options const& c = options.calibrated;
  ordered_json const job{{"version", SLIMTRIM_VERSION_STRING},
                         {"instruction_set", instruction_set()},
                         {"model", fingerprint_of(*input.files)},
                         {"plan", plan_json(p)},
                         {"format", options.format},
                         {"shard", options.most_shard_bytes},
                         {"data", fingerprint_of(*options.data)},
                         {"options", {c.sequential, c.affinity, c.hessian_bytes, c.joint_bytes, c.fit_sweeps, c.fit.ridges, c.fit.unit}}};
  return fingerprint_of(std::string_view(job.dump()));
}

// quantization_config of the output: of what was packed before and of what was packed now.
[[nodiscard]] inline ordered_json output_quantization(opened_model const& input, plan const& p,
                                                      packed_format const& format, output_modules const& modules) {
  ordered_json const* const before = find_field(input.files->config(), "quantization_config");
  if (modules.slimmed.empty() && (format.method() != "compressed-tensors" || !format.writes()))
    return renamed_modules(*before, *input.config.family, p);
  std::vector<scheme_group> groups;
  auto const add = [&](packed_scheme const& scheme, std::string const& stem) {
    auto at = std::find_if(groups.begin(), groups.end(), [&](scheme_group const& g) { return g.scheme == scheme; });
    if (at == groups.end()) at = groups.insert(groups.end(), scheme_group{scheme, {}});
    at->modules.push_back(stem);
  };
  for_each_module(input.config, [&](module_id id) {
    auto const target = planned_module(p, id);
    if (!target || !is_matrix_role(id.role)) return;
    std::string const stem = module_stem(*input.config.family, id);
    if (!format.holds(*input.files, stem)) return;
    std::vector<index_t> const shape = module_shape(input.config, id);
    add(format.scheme_of(*input.files, stem, shape[0], shape[1]), module_stem(*input.config.family, *target));
  });
  for (slimmed_module const& m : modules.slimmed)
    if (m.scheme) add(*m.scheme, m.stem);
  return format.config(groups, modules.dense_linears);
}

}  // namespace detail

/// Writes the model that `p` makes of `input` into the new folder `out`.
///
/// Copied tensors are copied byte for byte. The same input, plan and options give byte-identical folders for any
/// executor of `backend`. Peak memory: the largest matrix as stored plus its slimmed form plus 4 MiB, and what
/// `slim_calibrated` needs when a step works on tokens.
/// Throws `input_error` (a plan that does not fit, a step that hits packed weights, NaN in a weight: the tensor is
/// named), `usage_error` (a format that cannot carry a step), `system_failure`, and whatever `progress` throws. After
/// any of them nothing stands under `out`.
/// What works on tokens keeps a journal (compress_journal.hpp): after a kill, or any failure with `resume`, the same call with
/// `resume` goes on behind the last finished layer and gives the same bytes. Throws `input_error` when OUT.partial is of another job.
template <host_backend B>
compress_result compress(B const& backend, opened_model const& input, plan const& p, std::filesystem::path const& out,
                         compress_options const& options = {}) {
  check_plan(p, input.config, "plan");
  auto const format = detail::output_format(input, p, options.format);
  bool const half_scales = format && format->method() != "compressed-tensors";
  scale_type const scales = half_scales || input.config.storage == dtype::float16 ? scale_type::float16
                                                                                   : scale_type::bfloat16;
  output_modules modules = list_output_modules(*input.files, input.config, p, scales);
  std::vector<tensor_description> described;
  for (copied_tensor const& copy : modules.copies) described.push_back(detail::described(copy));
  for (slimmed_module const& m : modules.slimmed) {
    if (!m.scheme) {
      described.push_back(m.dense);
      continue;
    }
    format->check(m.stem, m.rows, m.columns, *m.scheme);
    for (tensor_description& tensor : format->describe(m.stem, m.rows, m.columns, *m.scheme))
      described.push_back(std::move(tensor));
  }
  for (constant_tensor const& each : modules.constants) described.push_back(each.tensor);

  compress_result result;
  result.bytes_in = input.files->file_bytes();
  result.passed_through = modules.passed_through;
  model_config const planned = planned_config(input.config, p);
  int fewest_bits = 8;
  bool zero_points = false;
  for (slimmed_module const& m : modules.slimmed)
    if (m.scheme) {
      fewest_bits = std::min(fewest_bits, m.scheme->bits);
      zero_points = zero_points || m.scheme->zero_points;
    }
  result.notes = loading_notes(planned, format ? (format->writes() ? format->method() : "fp8") : "", fewest_bits, zero_points,
                               makes_novices(p));

  ordered_json config = output_config(input.files->config(), input.config, p, input.files->config_place());
  if (format) config["quantization_config"] = detail::output_quantization(input, p, *format, modules);

  bool const calibrated = needs_calibrated_pass(modules);
  if (calibrated && options.data == nullptr)
    throw usage_error("the recipe works on calibration tokens: give --data");
  // Without calibration a run is as quick as copying: it starts over.
  bool const resume = options.resume && calibrated;
  atomic_folder folder(out, {.inputs = {input.files->folder()}, .resume = resume, .keep = resume});
  sharded_writer_options writing;
  writing.most_shard_bytes = options.most_shard_bytes;
  writing.metadata = {{"format", "pt"},
                      {"slimtrim.version", SLIMTRIM_VERSION_STRING},
                      {"slimtrim.instruction_set", std::string(detail::instruction_set())},
                      {"slimtrim.recipe", p.recipe}};
  sharded_writer writer(folder, std::move(described), writing);
  result.bytes_out = writer.file_bytes();
  if (options.masks && resume) throw usage_error("masks: expected without resume: layers of a stopped run have none");
  std::optional<mask_file> masks;
  if (options.masks) masks.emplace(folder, modules.slimmed);
  if (masks) result.mask_bytes = masks->bytes();

  index_t const total = static_cast<index_t>(modules.copies.size() + modules.slimmed.size());
  index_t done = 0;
  auto const report = [&] { report_progress(options.progress, "compress", done, total, "tensors"); };
  report();

  std::optional<compress_journal> journal;
  journal_entry layer_entry;
  std::set<std::string> taken_over;
  if (calibrated) {
    // From here on OUT.partial can be opened as a model, and a later run can read the layers that are finished.
    journal.emplace(folder, detail::job_of(input, p, options));
    folder.remove("config.json");
    folder.write("config.json", json_text(config));
    bool const kept = writer.begin(folder.resumed());
    if (!kept && !journal->layers().empty())
      throw input_error(printable(folder.path().native(), 1000), "expected the files that its journal speaks of: remove the folder");
    for (auto const& [layer, entry] : journal->layers()) {
      for (std::string const& name : entry.tensors) {
        writer.accept(name);
        taken_over.insert(name);
      }
      for (ordered_json const& module : entry.slimmed) result.slimmed.push_back(module);
      done += static_cast<index_t>(entry.slimmed.size());
      ++result.resumed_layers;
    }
    report();
  }

  constexpr std::size_t modules_ahead = 8;  // whose pages are read while one is slimmed
  detail::tensor_copier copy;
  bool const scaled = std::any_of(modules.slimmed.begin(), modules.slimmed.end(),
                                  [](slimmed_module const& m) { return wants_scales(&m); });
  // Norms, routers and whatever else in a layer stays dense may take AWQ's scales: it is written when the layer is done.
  std::vector<copied_tensor const*> waiting;
  auto const copy_now = [&](copied_tensor const& each) {
    copy(*input.files, each, writer);
    ++done;
    report();
  };
  for (copied_tensor const& each : modules.copies) {
    bool const may_change =
        scaled && each.module && (is_attention_role(each.module->role) || is_feed_forward_role(each.module->role));
    if (may_change) waiting.push_back(&each);
    else copy_now(each);
  }
  for (constant_tensor const& each : modules.constants)
    writer.write(each.tensor.name, std::as_bytes(std::span<float const>(each.values)));
  tensor_sink const sink = [&](std::string const& name, std::span<std::byte const> bytes) {
    detail::write_in_pieces(backend.run_on(), writer, name, bytes);
    layer_entry.tensors.push_back(name);
  };
  auto const finish = [&](slimmed_module const& m, slim_result const& slimmed) {
    emit_slimmed(format.get(), m, slimmed, sink);
    if (masks && slimmed.kept) masks->write(m, slimmed.kept->view());
    if (!m.steps.empty()) {
      result.slimmed.push_back(slimmed_summary(m, slimmed));
      layer_entry.slimmed.push_back(result.slimmed.back());
    }
    ++done;
    report();
  };
  auto const folded = [&](module_id id, matrix_view<float const> values) {
    auto const at = std::find_if(waiting.begin(), waiting.end(), [&](copied_tensor const* each) { return *each->module == id; });
    if (at == waiting.end()) throw error("compress: module " + module_name(*input.config.family, id) + " was written already");
    sink((*at)->name, detail::narrowed(values, (*at)->source.type));
    waiting.erase(at);
    ++done;
    report();
  };
  opened_model const trimmed = planned_model(input, p);
  if (calibrated) {
    calibrated_resumption resumption;
    resumption.on_layer = [&](index_t layer) {
      writer.sync();
      journal->add(layer, layer_entry);
      layer_entry = {};
    };
    opened_model finished;
    if (!journal->layers().empty()) {
      finished = open_model(folder.path());
      resumption.changed = finished.weights.get();
      resumption.finished = [&](index_t layer) { return journal->has(layer); };
      resumption.handed_out = [&](module_id id) { return taken_over.count(module_name(*finished.config.family, id)) != 0; };
    }
    calibrated_options pass = options.calibrated;
    // One account of all the work, unless somebody listens to the pass by itself.
    if (!pass.progress) pass.progress = [&](progress const&) { report(); };
    slim_calibrated(backend, input, p, modules, *options.data, finish, pass, folded, resumption);
  }
  for (copied_tensor const* each : waiting)
    if (taken_over.count(each->name) == 0) copy_now(*each);
  std::vector<slimmed_module const*> left;
  std::vector<module_id> left_ids;
  for (slimmed_module const& m : modules.slimmed) {
    bool const in_layers = is_attention_role(m.from.role) || is_feed_forward_role(m.from.role);
    if (calibrated && in_layers && m.from.role != module_role::router) continue;
    left.push_back(&m);
    left_ids.push_back(m.to);
  }
  read_ahead ahead(*trimmed.weights);
  ahead.begin(std::move(left_ids), 0);
  for (std::size_t i = 0; i < left.size(); ++i) {
    slimmed_module const& m = *left[i];
    ahead.go_on(i + modules_ahead);
    try {
      // Through the plan, so that a router has only the rows of the experts that stay.
      finish(m, slim_matrix(backend, trimmed.weights->matrix(m.to).view, m));
    } catch (input_error const& e) {
      throw input_error(input.files->place(), "tensor '" + module_name(*input.config.family, m.from) + "': " + e.what());
    }
    input.files->release(module_name(*input.config.family, m.from));
  }
  // What a resumed run took over was not counted tensor by tensor.
  done = total;
  report();
  writer.finish();
  if (masks) masks->finish();
  if (!calibrated) folder.write("config.json", json_text(config));
  for (std::string const& name : input.files->other_files()) {
    folder.remove(name);
    folder.copy(input.files->open_file(name), name);
  }
  input.files->require_unchanged();
  if (journal) journal->remove();
  folder.commit();
  return result;
}

}  // namespace v0
}  // namespace slimtrim
