// Regular expressions of tokenizer.json over PCRE2 (compiled to machine code where the platform allows it).
#pragma once

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/tokenizer/field.hpp>
#include <slimtrim/io/tokenizer/regex_syntax.hpp>

#include <pcre2.h>

#include <cstddef>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// Buffers of `regex`, one per thread.
class regex_workspace {
 public:
  regex_workspace()
      : data_(pcre2_match_data_create_8(1, nullptr), &pcre2_match_data_free_8),
        context_(pcre2_match_context_create_8(nullptr), &pcre2_match_context_free_8),
        stack_(pcre2_jit_stack_create_8(std::size_t{32} << 10, std::size_t{4} << 20, nullptr),
               &pcre2_jit_stack_free_8) {
    if (!data_ || !context_) throw system_failure("regex: out of memory");
    if (stack_) pcre2_jit_stack_assign_8(context_.get(), nullptr, stack_.get());
  }

 private:
  friend class regex;
  std::unique_ptr<pcre2_match_data_8, void (*)(pcre2_match_data_8*)> data_;
  std::unique_ptr<pcre2_match_context_8, void (*)(pcre2_match_context_8*)> context_;
  std::unique_ptr<pcre2_jit_stack_8, void (*)(pcre2_jit_stack_8*)> stack_;
};

/// A half-open range of bytes.
struct byte_range {
  std::size_t begin;
  std::size_t end;
};

/// A compiled pattern; immutable, cheap to copy, usable by many threads with a workspace each.
class regex {
 public:
  /// `pattern` as tokenizer.json has it. Throws `input_error` naming `where` for a pattern that is malformed or that
  /// PCRE2 would read differently.
  regex(std::string_view pattern, detail::json_field const& where) {
    if (pattern.empty()) where.fail("a pattern", "an empty one");
    try {
      compile(detail::regex_translator(pattern).translate(), where);
    } catch (detail::regex_refusal const& refusal) {
      where.fail("a pattern with " + refusal.expected, refusal.found);
    }
  }

  /// A pattern that matches `text` itself.
  [[nodiscard]] static regex literal(std::string_view text, detail::json_field const& where) {
    if (text.empty()) where.fail("a pattern", "an empty one");
    std::string escaped;
    for (std::size_t at = 0; at < text.size();) {
      utf8_step const step = decode_utf8(text, at);
      char code[16];
      int const n = std::snprintf(code, sizeof code, "\\x{%x}", static_cast<unsigned>(step.value));
      escaped.append(code, static_cast<std::size_t>(n));
      at += step.length;
    }
    regex result;
    result.compile(escaped, where);
    return result;
  }

  /// One character of a word: Unicode's recommendation for \\w (technical standard 18, annex C).
  [[nodiscard]] static regex word_character() {
    nlohmann::json const nothing;
    regex result;
    result.compile("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]", detail::json_field(nothing, "regex"));
    return result;
  }

  /// The leftmost match in `text` (valid UTF-8) at or after byte `from`. Throws `error` when the engine gives up, which
  /// takes a pattern that backtracks without bound.
  [[nodiscard]] std::optional<byte_range> find(std::string_view text, std::size_t from, regex_workspace& work) const {
    auto const* subject = reinterpret_cast<PCRE2_SPTR8>(text.data());
    int const found = jit_ ? pcre2_jit_match_8(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                               work.data_.get(), work.context_.get())
                           : pcre2_match_8(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                           work.data_.get(), work.context_.get());
    if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (found < 0) throw error("regex: " + message(found));
    PCRE2_SIZE const* range = pcre2_get_ovector_pointer_8(work.data_.get());
    return byte_range{range[0], range[1]};
  }

  /// Calls `piece(range, is_match)` for the matches and for what lies between them, in order, until the text is
  /// covered. An empty match is skipped where the previous match ended.
  template <class F>
  void for_each_piece(std::string_view text, regex_workspace& work, F&& piece) const {
    std::size_t covered = 0;
    std::size_t from = 0;
    bool any = false;
    while (from <= text.size()) {
      auto const match = find(text, from, work);
      if (!match) break;
      if (match->begin == match->end && any && match->end == covered) {
        from += from < text.size() ? utf8_length(text[from]) : 1;
        continue;
      }
      if (covered < match->begin) piece(byte_range{covered, match->begin}, false);
      piece(*match, true);
      covered = from = match->end;
      any = true;
    }
    if (covered < text.size()) piece(byte_range{covered, text.size()}, false);
  }

 private:
  regex() = default;

  void compile(std::string const& pattern, detail::json_field const& where) {
    if (pattern.size() > (std::size_t{1} << 16)) where.fail("a pattern of at most 64 KiB", "a longer one");
    std::unique_ptr<pcre2_compile_context_8, void (*)(pcre2_compile_context_8*)> const context(
        pcre2_compile_context_create_8(nullptr), &pcre2_compile_context_free_8);
    if (!context) throw system_failure("regex: out of memory");
    pcre2_set_newline_8(context.get(), PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(
        pcre2_compile_8(reinterpret_cast<PCRE2_SPTR8>(pattern.data()), pattern.size(),
                        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE, &code, &offset, context.get()),
        &pcre2_code_free_8);
    if (!code_) where.fail("a regular expression", message(code));
    jit_ = pcre2_jit_compile_8(code_.get(), PCRE2_JIT_COMPLETE) == 0;
  }

  [[nodiscard]] static std::string message(int code) {
    PCRE2_UCHAR8 text[200];
    pcre2_get_error_message_8(code, text, sizeof text);
    return reinterpret_cast<char const*>(text);
  }

  std::shared_ptr<pcre2_code_8> code_;
  bool jit_ = false;
};

}  // namespace v0
}  // namespace slimtrim
