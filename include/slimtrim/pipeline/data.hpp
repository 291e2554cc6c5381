// `--data D --tokens N --seq S`: windows of tokens for calibration and measurement, from files or from the model.
//
// Windows are the source's tokens in order, not overlapping, whole windows only.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/tokenizer.hpp>
#include <slimtrim/pipeline/fingerprint.hpp>
#include <slimtrim/pipeline/token_file.hpp>
#include <slimtrim/pipeline/token_text.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Makes `windows` texts of `sequence` tokens, one after another, determined by `seed`; `sample_text` of self_text.hpp
/// with a model is one.
using token_generator =
    std::function<std::vector<std::uint32_t>(index_t windows, index_t sequence, std::uint64_t seed)>;

struct data_options {
  index_t tokens = 0;       ///< in all, a multiple of `sequence`; 0 takes every whole window (not for `self`)
  index_t sequence = 2048;  ///< tokens of one window, at least 2
  std::uint64_t seed = 0;   ///< of `self`
};

/// Windows of equal length.
struct token_windows {
  index_t sequence = 0;               ///< tokens of one window
  std::vector<std::uint32_t> tokens;  ///< count() * sequence ids
  std::string source;                 ///< what was asked for, for reports

  [[nodiscard]] index_t count() const { return sequence == 0 ? 0 : static_cast<index_t>(tokens.size()) / sequence; }
  [[nodiscard]] std::span<std::uint32_t const> operator[](index_t window) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(window * sequence), static_cast<std::size_t>(sequence));
  }
};

/// Names the content of windows `[first, first + count)`: their length and ids, not where they came from.
[[nodiscard]] inline std::string fingerprint_of(token_windows const& windows, index_t first, index_t count) {
  expects(first >= 0 && count >= 0 && count <= windows.count() - first, "fingerprint_of", "windows out of range");
  fingerprint_builder builder;
  builder.add("slimtrim windows of " + std::to_string(windows.sequence) + ":");
  builder.add(std::span(windows.tokens)
                  .subspan(static_cast<std::size_t>(first * windows.sequence),
                           static_cast<std::size_t>(count * windows.sequence)));
  return builder.text();
}
[[nodiscard]] inline std::string fingerprint_of(token_windows const& windows) {
  return fingerprint_of(windows, 0, windows.count());
}

/// Windows `[first, first + count)` by themselves.
[[nodiscard]] inline token_windows part_of(token_windows const& windows, index_t first, index_t count) {
  expects(first >= 0 && count >= 0 && count <= windows.count() - first, "part_of", "windows out of range");
  auto const begin = windows.tokens.begin() + first * windows.sequence;
  return {windows.sequence, {begin, begin + count * windows.sequence}, windows.source};
}

namespace detail {

inline void check_data_options(std::string const& source, data_options const& options) {
  if (options.sequence < 2) throw usage_error("--seq: expected at least 2, found " + std::to_string(options.sequence));
  if (options.tokens < 0) throw usage_error("--tokens: expected a positive number");
  index_t const rest = options.tokens % options.sequence;
  if (rest != 0)
    throw usage_error("--tokens: expected a multiple of --seq " + std::to_string(options.sequence) + " such as " +
                      std::to_string(options.tokens - rest + (options.tokens < options.sequence ? options.sequence : 0)) +
                      ", found " + std::to_string(options.tokens));
  if (source.empty()) throw usage_error("--data: expected a file or self, found nothing");
}

[[nodiscard]] inline bool has_ending(std::string_view name, std::string_view ending) {
  return name.size() > ending.size() && name.substr(name.size() - ending.size()) == ending;
}

/// Throws `input_error` when the tokenizer has made ids that the model does not have.
inline void check_encoded_ids(std::span<std::uint32_t const> ids, index_t vocabulary, tokenizer const& encoder,
                              std::filesystem::path const& tokenizer_json) {
  for (std::uint32_t const id : ids)
    if (id >= static_cast<std::uint64_t>(vocabulary))
      throw input_error(printable(tokenizer_json.native(), 1000),
                        "token '" + printable(encoder.token_of(id), 40) + "': expected an id below " + std::to_string(vocabulary) +
                            " (the model's vocabulary), found " + std::to_string(id));
}

[[nodiscard]] inline std::vector<std::uint32_t> tokens_of_file(input_file const& file, std::uint64_t most,
                                                               index_t vocabulary,
                                                               std::filesystem::path const& tokenizer_json) {
  if (file.size() == 0) throw input_error(file.place(), "expected text or token ids, found an empty file");
  std::string const name = file.path().native();
  if (is_token_file(name)) return read_token_file(file, most, vocabulary);
  if (has_ending(name, ".safetensors") || has_ending(name, ".parquet") || has_ending(name, ".gz") ||
      has_ending(name, ".zst"))
    throw input_error(file.place(), "expected text, .jsonl or token ids (.u16, .u32, .npy), found another format");
  tokenizer const encoder = tokenizer::from_file(tokenizer_json);
  std::vector<std::uint32_t> ids = has_ending(name, ".jsonl") ? read_jsonl_tokens(file, most, encoder)
                                                              : read_text_tokens(file, most, encoder);
  check_encoded_ids(ids, vocabulary, encoder, tokenizer_json);
  return ids;
}

/// The whole windows of `ids`, of which `options` wants so many. `place` is where they came from.
[[nodiscard]] inline token_windows whole_windows(std::vector<std::uint32_t> ids, data_options const& options, std::string const& source,
                                                 std::string const& place) {
  auto const found = static_cast<index_t>(ids.size());
  if (found < options.sequence)
    throw input_error(place, "expected at least " + std::to_string(options.sequence) + " tokens (one window, see --seq), found " +
                                 std::to_string(found));
  if (found < options.tokens)
    throw input_error(place, "expected " + std::to_string(options.tokens) + " tokens (" +
                                 std::to_string(options.tokens / options.sequence) + " windows of " +
                                 std::to_string(options.sequence) + "), found " + std::to_string(found));
  ids.resize(static_cast<std::size_t>(found - found % options.sequence));
  return {options.sequence, std::move(ids), source};
}

[[nodiscard]] inline token_windows generated_windows(data_options const& options, index_t vocabulary,
                                                     token_generator const& generate) {
  if (!generate) throw usage_error("--data self: expected a model that can generate; this command takes files only");
  if (options.tokens == 0) throw usage_error("--data self: expected --tokens");
  token_windows windows{options.sequence, {}, "self"};
  windows.tokens = generate(options.tokens / options.sequence, options.sequence, options.seed);
  expects_equal(static_cast<long long>(windows.tokens.size()), options.tokens, "token_generator", "tokens");
  for (std::uint32_t const id : windows.tokens) expects(id < vocabulary, "token_generator", "id beyond the vocabulary");
  return windows;
}

}  // namespace detail

/// Windows from what `--data` names: a text file, a `.jsonl` with `text` fields, ids (`.u16`, `.u32`, `.npy`), or
/// `self`. `vocabulary` bounds the ids; `tokenizer_json` is read only for text; `generate` is called only for `self`.
/// Throws `usage_error` for impossible options and `input_error` for a source that is empty, too short, or holds ids
/// beyond the vocabulary.
[[nodiscard]] inline token_windows load_windows(std::string const& source, data_options const& options,
                                                index_t vocabulary, std::filesystem::path const& tokenizer_json,
                                                token_generator const& generate = {}) {
  detail::check_data_options(source, options);
  if (source == "self") return detail::generated_windows(options, vocabulary, generate);
  input_file const file = input_file::open(source);
  std::uint64_t const most = options.tokens == 0 ? UINT64_MAX : static_cast<std::uint64_t>(options.tokens);
  return detail::whole_windows(detail::tokens_of_file(file, most, vocabulary, tokenizer_json), options, source, file.place());
}

/// Windows from a text that is in memory; `source` names it. Throws as `load_windows`.
[[nodiscard]] inline token_windows windows_of_text(std::string_view text, std::string const& source, data_options const& options,
                                                   index_t vocabulary, std::filesystem::path const& tokenizer_json) {
  detail::check_data_options(source, options);
  if (text.empty()) throw input_error(source, "expected text, found nothing");
  tokenizer const encoder = tokenizer::from_file(tokenizer_json);
  std::vector<std::uint32_t> ids = encoder.encode(text);
  if (options.tokens != 0) ids.resize(std::min(ids.size(), static_cast<std::size_t>(options.tokens)));
  detail::check_encoded_ids(ids, vocabulary, encoder, tokenizer_json);
  return detail::whole_windows(std::move(ids), options, source, source);
}

}  // namespace v0
}  // namespace slimtrim
