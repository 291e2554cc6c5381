// What is done to the text before it is cut, as Hugging Face's normalizers do: Unicode forms, Prepend, Replace, Strip.
#pragma once

#include <slimtrim/io/tokenizer/field.hpp>
#include <slimtrim/io/tokenizer/regex.hpp>
#include <slimtrim/io/tokenizer/unicode_form.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// A text replacement; shared by the normalizer and the decoder of the same name.
class replacement {
 public:
  explicit replacement(json_field const& field)
      : pattern_(pattern_of(field.at("pattern"))), content_(field.at("content").string()) {
    if (auto const literal = field.at("pattern").find("String")) literal_ = literal->string();
  }

  /// Throws `error` when the result would have more than `limit` bytes.
  [[nodiscard]] std::string apply(std::string_view text, std::size_t limit, regex_workspace& work) const {
    std::string out;
    auto const append = [&](std::string_view part) {
      if (part.size() > limit - out.size()) throw error("tokenizer: a replacement makes the text too long");
      out += part;
    };
    if (!literal_.empty()) {
      for (std::size_t at = 0;;) {
        std::size_t const found = text.find(literal_, at);
        append(text.substr(at, found == std::string_view::npos ? found : found - at));
        if (found == std::string_view::npos) return out;
        append(content_);
        at = found + literal_.size();
      }
    }
    pattern_.for_each_piece(text, work, [&](byte_range range, bool match) {
      append(match ? std::string_view(content_) : text.substr(range.begin, range.end - range.begin));
    });
    return out;
  }

  [[nodiscard]] std::string const& content() const { return content_; }

 private:
  static regex pattern_of(json_field const& field) {
    if (auto const literal = field.find("String")) return regex::literal(literal->string(), *literal);
    auto const pattern = field.at("Regex");
    return regex(pattern.string(), pattern);
  }

  regex pattern_;
  std::string literal_;  // empty when the pattern is a regular expression
  std::string content_;
};

}  // namespace detail

class normalizer {
 public:
  /// The identity.
  normalizer() = default;

  /// From the `normalizer` field. Throws `input_error` naming what is unknown or malformed.
  explicit normalizer(detail::json_field const& field) { add(field); }

  [[nodiscard]] bool empty() const { return stages_.empty(); }

  /// The normalised text (valid UTF-8 in and out). The result may have 32 times the bytes of the input and 1 MiB more;
  /// throws `error` where a hostile sequence of replacements goes beyond.
  [[nodiscard]] std::string apply(std::string_view text, regex_workspace& work) const {
    std::size_t const limit = 32 * text.size() + (std::size_t{1} << 20);
    std::string out(text);
    for (stage const& s : stages_) {
      if (auto const* form = std::get_if<unicode_form>(&s)) {
        out = to_unicode_form(out, *form);
      } else if (auto const* prefix = std::get_if<prepend>(&s)) {
        if (!out.empty()) out.insert(0, prefix->text);
      } else if (auto const* ends = std::get_if<strip>(&s)) {
        out = stripped(out, *ends);
      } else {
        out = std::get<detail::replacement>(s).apply(out, limit, work);
      }
      if (out.size() > limit) throw error("tokenizer: normalisation makes the text too long");
    }
    return out;
  }

 private:
  struct prepend {
    std::string text;
  };
  struct strip {
    bool left;
    bool right;
  };
  using stage = std::variant<unicode_form, prepend, strip, detail::replacement>;

  static std::string stripped(std::string_view text, strip ends) {
    std::size_t begin = 0;
    std::size_t end = text.size();
    while (ends.left && begin < end) {
      utf8_step const step = decode_utf8(text, begin);
      if (!is_white_space(step.value)) break;
      begin += step.length;
    }
    while (ends.right && begin < end) {
      std::size_t last = end - 1;
      while ((static_cast<unsigned char>(text[last]) & 0xC0U) == 0x80U) --last;
      if (!is_white_space(decode_utf8(text, last).value)) break;
      end = last;
    }
    return std::string(text.substr(begin, end - begin));
  }

  void add(detail::json_field const& field) {
    std::string const& type = field.at("type").string();
    if (type == "Sequence") {
      auto const list = field.at("normalizers");
      for (std::size_t i = 0; i < list.size(); ++i) add(list.at(i));
      return;
    }
    if (stages_.size() >= 64) field.fail("at most 64 normalizers", "more");
    if (type == "NFC") {
      stages_.emplace_back(unicode_form::nfc);
    } else if (type == "NFD") {
      stages_.emplace_back(unicode_form::nfd);
    } else if (type == "NFKC") {
      stages_.emplace_back(unicode_form::nfkc);
    } else if (type == "NFKD") {
      stages_.emplace_back(unicode_form::nfkd);
    } else if (type == "Prepend") {
      stages_.emplace_back(prepend{field.at("prepend").string()});
    } else if (type == "Replace") {
      stages_.emplace_back(detail::replacement(field));
    } else if (type == "Strip") {
      stages_.emplace_back(strip{field.boolean("strip_left", true), field.boolean("strip_right", true)});
    } else {
      field.at("type").fail("NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip or Sequence");
    }
  }

  std::vector<stage> stages_;
};

}  // namespace v0
}  // namespace slimtrim
