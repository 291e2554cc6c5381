// A checkpoint written again as another folder: expanded to bfloat16, or with the same codes in another packed format.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/progress.hpp>
#include <slimtrim/io/atomic_folder.hpp>
#include <slimtrim/io/sharded_writer.hpp>
#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/pipeline/compress.hpp>  // tensor_copier
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/targets.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct convert_folder_options {
  std::string format = "bf16";  ///< bf16, compressed-tensors, awq or gptq
  std::uint64_t most_shard_bytes = 5'000'000'000;
  progress_callback progress{};
};

struct convert_folder_result {
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  index_t expanded = 0;                       ///< packed matrices that became bfloat16
  index_t repacked = 0;                       ///< packed matrices that changed their format
  std::vector<std::string> passed_through{};  ///< tensors that the family does not know, copied untouched
};

namespace detail {

/// What one module becomes.
struct converted_module {
  module_id id{};
  std::string stem{};
  bool packed = false;
  packed_scheme scheme{};      ///< of the output, where that is packed
  tensor_description dense{};  ///< otherwise
};

/// Whether a tensor of this last name is (part of) a module's weight, in any format. What else a module has is copied.
[[nodiscard]] inline bool is_weight_part(std::string_view suffix) {
  constexpr std::array<std::string_view, 10> parts{"weight",       "weight_packed", "weight_scale", "weight_zero_point",
                                                   "weight_shape", "weight_g_idx",  "qweight",      "qzeros",
                                                   "scales",       "g_idx"};
  return std::find(parts.begin(), parts.end(), suffix) != parts.end();
}

[[nodiscard]] inline bool all_middle_zeros(quantized_view<> const& w) {
  if (w.zeros.data == nullptr) return true;
  for (index_t i = 0; i < w.zeros.extent(0); ++i)
    for (index_t j = 0; j < w.zeros.extent(1); ++j)
      if (w.zeros(i, j) != 1 << (w.bits - 1)) return false;
  return true;
}

// The scheme in which `format` says the same as `w`. Throws `input_error` where it cannot.
[[nodiscard]] inline packed_scheme equal_scheme(quantized_view<> const& w, packed_format const& format,
                                                packed_scheme from, std::string const& stem) {
  std::string const where = "tensor '" + printable(stem) + "': ";
  if (w.column_group != nullptr)
    throw input_error(where + "its groups follow an activation order, which only its own format can say");
  bool const middle = all_middle_zeros(w);
  from.zero_points = format.method() == "awq" || !middle;
  if (format.method() == "gptq" && !middle)
    throw input_error(where + "has zero points, and the gptq format (version 1) is written for symmetric weights");
  if (format.method() != "compressed-tensors") from.scales = scale_type::float16;
  for (index_t i = 0; i < w.scales.extent(0); ++i)
    for (index_t j = 0; j < w.scales.extent(1); ++j) {
      float const scale = w.scales(i, j);
      if (from.scales == scale_type::float16 && static_cast<float>(float16(scale)) != scale)
        throw input_error(where + "scale " + std::to_string(scale) + " is no float16, and the format takes no other");
    }
  format.check(stem, w.rows, w.columns, from);
  return from;
}

}  // namespace detail

/// Writes `model` as the new folder `out`. To bf16: packed matrices are expanded, float tensors rounded. To a packed
/// format: codes and scales are kept, so every weight has the same value; matrices that are not packed are copied. A
/// matrix at a time is in memory. Throws `usage_error` when nothing is packed and a packed format is asked for (a
/// recipe decides how), `input_error` for what the format cannot say without a change (zero points, activation orders,
/// scales) and numbers that are not finite, `system_failure`, and whatever `progress` throws. After any of them nothing
/// stands at `out`.
inline convert_folder_result convert_folder(opened_model const& model, std::filesystem::path const& out,
                                            convert_folder_options const& options = {}) {
  bool const dense = options.format == "bf16";
  auto const format = dense ? nullptr : find_packed_format(options.format);
  if (!dense && !format)
    throw usage_error("--format: expected bf16, compressed-tensors, awq, gptq or gguf, found " + options.format);
  if (!dense && !model.format)
    throw usage_error("--format " + options.format + ": " + model.files->place() +
                      " is not packed; how to pack it is a recipe's decision: slimtrim compress");
  model_family const& family = *model.config.family;
  convert_folder_result result;
  result.bytes_in = model.files->file_bytes();

  std::vector<detail::converted_module> modules;
  std::vector<tensor_description> described;
  std::vector<copied_tensor> copies;
  std::vector<scheme_group> groups;
  std::vector<std::string> dense_linears, own;  // own: tensors of modules that are written anew
  for_each_module(model.config, [&](module_id id) {
    detail::converted_module each;
    each.id = id;
    each.stem = module_stem(family, id);
    each.packed = is_matrix_role(id.role) && model.format && model.format->holds(*model.files, each.stem);
    std::string const name = module_name(family, id);
    tensor_info const* const stored = model.files->find(name);
    if (!each.packed && stored == nullptr) return;  // a novice stands for it
    if (!each.packed && is_matrix_role(id.role) && id.role != module_role::embedding)
      dense_linears.push_back(each.stem);
    if (!each.packed && (!dense || stored->type == dtype::bfloat16)) return;
    each.dense.name = name;
    each.dense.type = dtype::bfloat16;
    each.dense.shape = module_shape(model.config, id);
    if (each.packed && format) {
      weight const w = model.weights->matrix(id);
      auto const& view = std::get<quantized_view<>>(w.view);
      packed_scheme const from = model.format->scheme_of(*model.files, each.stem, view.rows, view.columns);
      each.scheme = detail::equal_scheme(view, *format, from, each.stem);
      auto at =
          std::find_if(groups.begin(), groups.end(), [&](scheme_group const& g) { return g.scheme == each.scheme; });
      if (at == groups.end()) at = groups.insert(groups.end(), scheme_group{each.scheme, {}});
      at->modules.push_back(each.stem);
      for (tensor_description& tensor : format->describe(each.stem, view.rows, view.columns, each.scheme))
        described.push_back(std::move(tensor));
      ++result.repacked;
    } else {
      described.push_back(each.dense);
      if (each.packed) ++result.expanded;
    }
    own.push_back(each.stem + ".");
    modules.push_back(std::move(each));
  });
  std::sort(own.begin(), own.end());
  for (tensor_info const& tensor : model.files->tensors()) {
    std::string const stem = tensor.name.substr(0, tensor.name.rfind('.') + 1);
    if (std::binary_search(own.begin(), own.end(), stem) && detail::is_weight_part(tensor.name.substr(stem.size())))
      continue;
    copied_tensor copy;
    copy.source = tensor;
    copy.name = tensor.name;
    described.push_back(detail::described(copy));
    std::string_view suffix;
    if (!parse_module(family, tensor.name) && !parse_module_part(family, tensor.name, suffix))
      result.passed_through.push_back(tensor.name);
    copies.push_back(std::move(copy));
  }
  ordered_json config = model.files->config();
  config.erase("quantization_config");
  if (dense) config[config.contains("dtype") && !config.contains("torch_dtype") ? "dtype" : "torch_dtype"] = "bfloat16";
  if (format) config["quantization_config"] = format->config(groups, dense_linears);

  atomic_folder folder(out, {.inputs = {model.files->folder()}});
  sharded_writer_options writing;
  writing.most_shard_bytes = options.most_shard_bytes;
  writing.metadata = {{"format", "pt"}, {"slimtrim.version", SLIMTRIM_VERSION_STRING}};
  sharded_writer writer(folder, std::move(described), writing);
  result.bytes_out = writer.file_bytes();
  index_t done = 0;
  auto const report = [&] {
    report_progress(options.progress, "convert", done++, static_cast<index_t>(modules.size() + copies.size()), "tensors");
  };
  detail::tensor_copier copy;
  for (detail::converted_module const& each : modules) {
    report();
    if (!is_matrix_role(each.id.role)) {
      std::vector<float> values = model.weights->vector(each.id);
      writer.write(each.dense.name,
                   detail::narrowed(matrix_view<float const>(values.data(), 1, static_cast<index_t>(values.size())),
                                    dtype::bfloat16));
      continue;
    }
    weight const w = model.weights->matrix(each.id);
    if (each.packed && format) {
      format->emit(each.stem, std::get<quantized_view<>>(w.view), each.scheme,
                   [&](std::string const& name, std::span<std::byte const> bytes) { writer.write(name, bytes); });
    } else {
      // Some rows at a time: a whole embedding as floats would be the largest thing in memory.
      index_t const columns = w.columns(),
                    piece = std::max<index_t>(1, (index_t{1} << 20) / std::max<index_t>(columns, 1));
      for (index_t first = 0; first < w.rows(); first += piece) {
        tensor<float, 2> values(std::min(piece, w.rows() - first), columns);
        expand_rows(w.view, first, values.view());
        for (index_t i = 0; i < values.view().size(); ++i)
          if (!std::isfinite(static_cast<float>(bfloat16(values.view().data[i]))))
            throw input_error(model.files->place(), "tensor '" + printable(each.dense.name) + "': element [" +
                                                        std::to_string(first + i / columns) + ", " +
                                                        std::to_string(i % columns) + "]: expected a finite bfloat16");
        writer.write(each.dense.name, static_cast<std::uint64_t>(first * columns) * 2,
                     detail::narrowed(as_const(values.view()), dtype::bfloat16));
      }
    }
    if (each.id.role != module_role::embedding && each.id.role != module_role::head)
      model.weights->release(each.id.layer);
  }
  for (copied_tensor const& each : copies) {
    report();
    copy(*model.files, each, writer);
  }
  writer.finish();
  folder.write("config.json", json_text(config));
  for (std::string const& name : model.files->other_files()) folder.copy(model.files->open_file(name), name);
  model.files->require_unchanged();
  folder.commit();
  return result;
}

}  // namespace v0
}  // namespace slimtrim
