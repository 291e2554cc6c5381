// A checkpoint written as one GGUF file.
//
// Streamed: rows are read, encoded and written in pieces, so memory is a few megabytes a thread whatever the model's
// size. 4- and 8-bit weights without zero points keep their codes and scales as Q4_0 and Q8_0 blocks: nothing is
// quantised twice.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/core/progress.hpp>
#include <slimtrim/io/atomic_file.hpp>
#include <slimtrim/io/gguf_writer.hpp>
#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/pipeline/format/gguf.hpp>
#include <slimtrim/pipeline/format/gguf_tokenizer.hpp>
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/slim/quantize/gguf_blocks.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct convert_gguf_options {
  /// Of all matrices but the router; absent: each as it is stored, packed weights as blocks of the same codes.
  std::optional<gguf_type> type{};
  executor* run_on = nullptr;
  progress_callback progress{};
};

struct convert_gguf_result {
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
  std::map<std::string, index_t> types{};  ///< tensors of each element type
  std::vector<std::string> notes{};
};

/// The type that a user calls `name` ("f32", "f16", "bf16", "q8_0", "q4_0"), or nothing.
[[nodiscard]] inline std::optional<gguf_type> gguf_type_from_name(std::string_view name) {
  for (auto const& [known, type] : {std::pair<std::string_view, gguf_type>{"f32", gguf_type::float32},
                                    {"f16", gguf_type::float16},
                                    {"bf16", gguf_type::bfloat16},
                                    {"q8_0", gguf_type::q8_0},
                                    {"q4_0", gguf_type::q4_0}})
    if (name == known) return type;
  return std::nullopt;
}

namespace detail {

// What is said about a tensor whose row r, column c the type cannot hold.
[[noreturn]] inline void refuse_gguf_element(std::string const& name, index_t r, index_t c, std::string const& what) {
  throw input_error("tensor '" + printable(name) + "': element [" + std::to_string(r) + ", " + std::to_string(c) +
                    "]: " + what);
}

// Encodes a row of n floats; `name`, `r` for messages. NaN, Inf and values beyond the type's range are refused. The
// looking is apart from the encoding, so that both are simple loops.
inline void encode_gguf_row(float const* x, index_t n, gguf_type type, std::byte* out, std::string const& name,
                            index_t r) {
  bool finite = true;
  for (index_t c = 0; c < n; ++c) finite &= std::fabs(x[c]) <= std::numeric_limits<float>::max();
  for (index_t c = 0; !finite && c < n; ++c)
    if (!std::isfinite(x[c])) refuse_gguf_element(name, r, c, "expected a finite number");
  // Half-precision numbers `stride` bytes apart, the k-th made of element k * elements and those behind it.
  auto const require_finite = [&](index_t count, index_t stride, index_t elements, unsigned exponent) {
    for (index_t k = 0; k < count; ++k) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, out + k * stride, 2);
      if ((bits & exponent) == exponent)
        refuse_gguf_element(name, r, k * elements,
                            "expected numbers in the range of " + std::string(gguf_type_info(type).name) + ", found " +
                                std::to_string(x[k * elements]));
    }
  };
  switch (type) {
    case gguf_type::float32:
      std::memcpy(out, x, static_cast<std::size_t>(n) * 4);
      return;
    case gguf_type::float16:
      for (index_t c = 0; c < n; ++c) put_half(out + 2 * c, float16(x[c]).bits);
      return require_finite(n, 2, 1, 0x7c00);
    case gguf_type::bfloat16:
      for (index_t c = 0; c < n; ++c) put_half(out + 2 * c, bfloat16(x[c]).bits);
      return require_finite(n, 2, 1, 0x7f80);
    case gguf_type::q8_0:
      encode_q8_0(x, n, out);
      return require_finite(n / gguf_block, q8_0_bytes, gguf_block, 0x7c00);
    case gguf_type::q4_0:
      encode_q4_0(x, n, out);
      return require_finite(n / gguf_block, q4_0_bytes, gguf_block, 0x7c00);
  }
}

// Takes a row over as it is stored, if the type can say the same.
[[nodiscard]] inline bool repack_gguf_row(weight_view const& w, index_t r, gguf_type type, std::byte* out) {
  auto const* const packed = std::get_if<quantized_view<>>(&w);
  if (packed == nullptr) return false;
  if (type == gguf_type::q4_0) return repack_q4_0(*packed, r, out);
  return type == gguf_type::q8_0 && repack_q8_0(*packed, r, out);
}

// The type in which a stored matrix loses nothing.
[[nodiscard]] inline gguf_type stored_gguf_type(opened_model const& model, module_id id) {
  std::string const stem = module_stem(*model.config.family, id);
  if (!model.format || !model.format->holds(*model.files, stem)) {
    dtype const type = model.files->at(module_name(*model.config.family, id)).type;
    return type == dtype::bfloat16 ? gguf_type::bfloat16
                                   : (type == dtype::float16 ? gguf_type::float16 : gguf_type::float32);
  }
  std::vector<index_t> const shape = module_shape(model.config, id);
  packed_scheme const scheme = model.format->scheme_of(*model.files, stem, shape[0], shape[1]);
  bool const blocks = (scheme.bits == 4 || scheme.bits == 8) && shape[1] % gguf_block == 0 &&
                      (scheme.group == 0 || scheme.group % gguf_block == 0);
  if (!blocks)
    throw usage_error("tensor '" + printable(stem) + "': " + std::to_string(scheme.bits) + " bits in groups of " +
                      std::to_string(scheme.group == 0 ? shape[1] : scheme.group) +
                      ": GGUF's blocks take 4 and 8 bits in multiples of 32; give --type to change them");
  return scheme.bits == 4 ? gguf_type::q4_0 : gguf_type::q8_0;
}

// The file's tensors with their types. Notes say what could not have the type that was asked for.
[[nodiscard]] inline std::vector<gguf_tensor> typed_gguf_tensors(opened_model const& model,
                                                                 std::vector<gguf_module> const& modules,
                                                                 std::optional<gguf_type> wanted,
                                                                 std::vector<std::string>& notes) {
  std::vector<gguf_tensor> tensors;
  index_t unaligned = 0;
  for (gguf_module const& each : modules) {
    gguf_tensor tensor{each.name, gguf_type::float32, each.shape};
    if (!each.vector && !each.router) {
      tensor.type = wanted ? *wanted : stored_gguf_type(model, each.sources.front());
      for (module_id const id : each.sources)
        if (!wanted && stored_gguf_type(model, id) != tensor.type)
          throw usage_error("tensor '" + printable(each.name) +
                            "': its experts are stored in different types: give --type");
      if (each.shape.back() % static_cast<index_t>(gguf_type_info(tensor.type).elements) != 0) {
        tensor.type = gguf_type::float16;
        ++unaligned;
      }
    }
    tensors.push_back(std::move(tensor));
  }
  if (unaligned > 0)
    notes.push_back(std::to_string(unaligned) + " tensors have rows that are no multiple of 32 and are F16");
  return tensors;
}

// Writes one matrix of a tensor, from byte `offset` of it.
inline void write_gguf_matrix(weight_view const& w, gguf_module const& m, gguf_type type, bool strict,
                              std::uint64_t offset, gguf_writer& writer, std::string const& source, executor* run_on) {
  index_t const rows = weight_rows(w), columns = weight_columns(w);
  index_t const shape[1] = {columns};
  auto const row_bytes = static_cast<index_t>(*gguf_bytes(gguf_type_info(type), shape));
  index_t const head_dim = m.rotated_heads > 0 ? rows / m.rotated_heads : 0;
  // Pieces of about a megabyte of floats.
  index_t const piece = std::max<index_t>(1, (index_t{1} << 18) / std::max<index_t>(columns, 1));
  parallel_for(run_on, ceil_div(rows, piece), [&](index_t p) {
    index_t const first = p * piece, count = std::min(piece, rows - first);
    std::vector<std::byte> encoded(static_cast<std::size_t>(count * row_bytes));
    tensor<float, 2> values(1, columns);
    for (index_t i = 0; i < count; ++i) {
      index_t const r = head_dim > 0 ? gguf_source_row(first + i, head_dim) : first + i;
      std::byte* const out = encoded.data() + i * row_bytes;
      if (repack_gguf_row(w, r, type, out)) continue;
      if (strict && std::holds_alternative<quantized_view<>>(w))
        throw input_error(
            "tensor '" + printable(source) + "': row " + std::to_string(r) +
            ": has zero points, an activation order or scales that GGUF's blocks cannot hold: give --type");
      expand_rows(w, r, values.view());
      encode_gguf_row(values.view().data, columns, type, out, source, r);
    }
    writer.write(m.name, offset + static_cast<std::uint64_t>(first * row_bytes), encoded);
  });
}

[[nodiscard]] inline std::uint32_t gguf_file_type(gguf_type type) {
  switch (type) {
    case gguf_type::float32:
      return 0;
    case gguf_type::float16:
      return 1;
    case gguf_type::q4_0:
      return 2;
    case gguf_type::q8_0:
      return 7;
    default:
      return 32;
  }
}

// Everything in front of the tensors.
[[nodiscard]] inline gguf_metadata gguf_model_metadata(opened_model const& model, std::string_view architecture,
                                                       gguf_type most, std::vector<std::string>& notes) {
  gguf_metadata keys = gguf_shape_metadata(model.config, architecture);
  keys.emplace_back("general.file_type", gguf_file_type(most));
  keys.emplace_back("general.quantization_version", std::uint32_t{2});
  auto const read_text = [&](std::string_view name) {
    input_file const file = model.files->open_file(name);
    if (file.size() > tokenizer_limits{}.file_bytes) throw input_error(file.place(), "expected a smaller file");
    std::string text(static_cast<std::size_t>(file.size()), '\0');
    file.read_at(0, std::as_writable_bytes(std::span<char>(text)));
    return std::pair{std::move(text), file.place()};
  };
  if (!model.files->has_file("tokenizer.json")) {
    keys.emplace_back("tokenizer.ggml.model", std::string("no_vocab"));
    notes.push_back("there is no tokenizer.json: engines will take token ids only");
    return keys;
  }
  auto const [text, place] = read_text("tokenizer.json");
  for (auto& entry : gguf_tokenizer_metadata(text, place, model.config.vocabulary, model.files->config()))
    keys.push_back(std::move(entry));
  if (model.files->has_file("tokenizer_config.json")) {
    ordered_json const settings = read_json(model.files->open_file("tokenizer_config.json"));
    ordered_json const* const chat = find_field(settings, "chat_template");
    if (chat != nullptr && chat->is_string()) keys.emplace_back("tokenizer.chat_template", chat->get<std::string>());
  }
  return keys;
}

}  // namespace detail

/// Writes `model` as the new file `out`.
///
/// Norms and routers are float32; matrices as `options.type` says. Query and key rows are reordered for llama.cpp's
/// rotary embedding. The same bytes for any executor. Throws `input_error` (what GGUF engines cannot hold, tensors that
/// the family does not know, NaN or numbers that a type cannot hold: the tensor is named), `usage_error` (packed
/// weights that no block type holds, without a type to change them to), `system_failure`, and whatever `progress`
/// throws. After any of them nothing stands at `out`.
inline convert_gguf_result convert_gguf(opened_model const& model, std::filesystem::path const& out,
                                        convert_gguf_options const& options = {}) {
  std::string const place = model.files->place();
  std::string_view const architecture = gguf_architecture(model.config, place);
  for (tensor_info const& tensor : model.files->tensors()) {
    std::string_view suffix;
    // Old checkpoints store the rotary frequencies, which follow from config.json.
    bool const computed = tensor.name.size() > 9 && tensor.name.substr(tensor.name.size() - 9) == ".inv_freq";
    auto const id = parse_module(*model.config.family, tensor.name);
    bool const novice = id && id->role == module_role::novice;
    if (novice || (!computed && !id && !parse_module_part(*model.config.family, tensor.name, suffix)))
      throw input_error(place, "tensor '" + printable(tensor.name) + "': GGUF engines have no place for it");
  }
  convert_gguf_result result;
  std::vector<gguf_module> const modules = gguf_modules(model.config);
  std::vector<gguf_tensor> tensors = detail::typed_gguf_tensors(model, modules, options.type, result.notes);
  for (gguf_tensor const& tensor : tensors) ++result.types[std::string(gguf_type_info(tensor.type).name)];
  gguf_type most = gguf_type::float32;
  for (std::size_t i = 0; i < modules.size(); ++i)
    if (modules[i].sources.front().role == module_role::gate) most = tensors[i].type;
  planned_layout layout = plan_gguf(detail::gguf_model_metadata(model, architecture, most, result.notes), tensors);
  result.bytes_in = model.files->file_bytes();
  result.bytes_out = layout.file_bytes;

  atomic_file target(out, {model.files->folder()});
  require_free_space(target.path().parent_path(), layout.file_bytes);
  gguf_writer writer(target.open(), std::move(layout));
  index_t done = 0;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    report_progress(options.progress, "convert", done++, static_cast<index_t>(modules.size()), "tensors");
    gguf_module const& m = modules[i];
    if (m.vector) {
      std::vector<float> const values = model.weights->vector(m.sources.front());
      for (std::size_t c = 0; c < values.size(); ++c)
        if (!std::isfinite(values[c]))
          detail::refuse_gguf_element(module_name(*model.config.family, m.sources.front()), 0, static_cast<index_t>(c),
                                      "expected a finite number");
      writer.write(m.name, std::as_bytes(std::span(values)));
      continue;
    }
    std::uint64_t offset = 0;
    for (module_id const id : m.sources) {
      weight const w = model.weights->matrix(id);
      index_t const shape[2] = {w.rows(), w.columns()};
      detail::write_gguf_matrix(w.view, m, tensors[i].type, !options.type && tensors[i].type != gguf_type::float32,
                                offset, writer, module_name(*model.config.family, id), options.run_on);
      offset += *gguf_bytes(gguf_type_info(tensors[i].type), shape);
    }
    module_id const id = m.sources.front();
    if (id.role == module_role::embedding || id.role == module_role::head)
      model.files->release(module_name(*model.config.family, id));
    bool const last_of_layer = i + 1 == modules.size() || modules[i + 1].sources.front().layer != id.layer;
    if (last_of_layer) model.weights->release(id.layer);
  }
  report_progress(options.progress, "convert", done, done, "tensors");
  writer.finish();
  model.files->require_unchanged();
  target.commit();
  return result;
}

}  // namespace v0
}  // namespace slimtrim
