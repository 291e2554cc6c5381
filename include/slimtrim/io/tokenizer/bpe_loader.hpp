// The `model` field of tokenizer.json, checked and turned into a `bpe_model`.
#pragma once

#include <slimtrim/io/tokenizer/bpe.hpp>
#include <slimtrim/io/tokenizer/document.hpp>
#include <slimtrim/io/tokenizer/field.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace slimtrim {
inline namespace v0 {
namespace detail {

inline constexpr std::string_view space_mark = "\xE2\x96\x81";  // U+2581

/// Whether a run of U+2581 begins inside `text`, after another character.
[[nodiscard]] inline bool has_inner_space_mark(std::string_view text) {
  for (std::size_t at = text.find(space_mark); at != std::string_view::npos; at = text.find(space_mark, at + 1))
    if (at != 0 && (at < 3 || text.substr(at - 3, 3) != space_mark)) return true;
  return false;
}

/// Throws `input_error` when the model is not BPE, names tokens that it does not have, or asks for what changes from
/// run to run (dropout).
[[nodiscard]] inline bpe_model load_bpe(tokenizer_document&& document, json_field const& model) {
  if (auto const type = model.find("type"); type && type->string() != "BPE") type->fail("BPE");
  if (auto const dropout = model.find("dropout"); dropout && dropout->json() != 0) dropout->fail("no dropout");
  for (char const* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (auto const field = model.find(affix); field && !field->string().empty()) field->fail("an empty string or null");
  if (!model.json().contains("vocab")) (void)model.at("vocab");
  if (!model.json().contains("merges")) (void)model.at("merges");
  vocabulary const& tokens = document.tokens;

  bpe_options options;
  options.fuse_unknown = model.boolean("fuse_unk", false);
  options.byte_fallback = model.boolean("byte_fallback", false);
  options.ignore_merges = model.boolean("ignore_merges", false);
  if (auto const unknown = model.find("unk_token")) {
    options.unknown = tokens.find(unknown->string());
    if (!options.unknown) unknown->fail("a token of model.vocab");
  }
  // With the mark itself known, no unknown character waits across it either.
  options.cuts_at_space_mark = tokens.find(space_mark).has_value();

  merge_list const& list = document.merges;
  merge_table merges;
  auto const fail = [&](std::size_t i, std::string_view found) {
    throw input_error(model.file(), "model.merges[" + std::to_string(i) + "]: expected tokens of model.vocab, found " +
                                        shown_text(found));
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto const left = tokens.find(list.left(i));
    auto const right = tokens.find(list.right(i));
    auto const joined = tokens.find(list.joined(i));
    if (!left) fail(i, list.left(i));
    if (!right) fail(i, list.right(i));
    if (!joined) fail(i, list.joined(i));
    merges.insert(*left, *right, {static_cast<std::uint32_t>(i), *joined});
    if (has_inner_space_mark(list.joined(i))) options.cuts_at_space_mark = false;
  }
  return {std::move(document.tokens), std::move(merges), options};
}

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
