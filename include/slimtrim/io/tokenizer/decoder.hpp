// From token texts back to text, as Hugging Face's decoders do it.
//
// A decoder is a chain of steps over the list of token texts; what the last step leaves is joined.
#pragma once

#include <slimtrim/io/tokenizer/byte_level.hpp>
#include <slimtrim/io/tokenizer/field.hpp>
#include <slimtrim/io/tokenizer/normalizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

class decoder {
 public:
  /// Tokens joined by one space.
  decoder() = default;

  /// From the `decoder` field. Throws `input_error` naming what is unknown or malformed.
  explicit decoder(detail::json_field const& field) : present_(true) { add(field); }

  /// The text of `tokens`. Bytes that are not UTF-8 become U+FFFD: one per maximal ill-formed subpart in a ByteLevel
  /// step, one per byte of the run in a ByteFallback step. Linear in the text for each step, replacements by pattern apart; throws
  /// `error` where one of those exceeds its limit.
  [[nodiscard]] std::string apply(std::vector<std::string> tokens, regex_workspace& work) const {
    for (step const& s : steps_) {
      if (std::holds_alternative<byte_level>(s)) {
        tokens = joined_bytes(tokens);
      } else if (std::holds_alternative<byte_fallback>(s)) {
        tokens = without_byte_tokens(std::move(tokens));
      } else if (std::holds_alternative<fuse>(s)) {
        tokens = {join(tokens, "")};
      } else if (auto const* cut = std::get_if<strip>(&s)) {
        for (auto& token : tokens) token = stripped(token, *cut);
      } else if (auto const* spaces = std::get_if<metaspace>(&s)) {
        for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = with_spaces(tokens[i], *spaces, i == 0);
      } else {
        auto const& r = std::get<detail::replacement>(s);
        for (auto& token : tokens) token = r.apply(token, (std::size_t{1} << 24) + 1024 * token.size(), work);
      }
    }
    return join(tokens, present_ ? "" : " ");
  }

 private:
  struct byte_level {};
  struct byte_fallback {};
  struct fuse {};
  struct strip {
    std::string content;
    std::uint64_t start;
    std::uint64_t stop;
  };
  struct metaspace {
    std::string replacement;
    bool prepended;
  };
  using step = std::variant<byte_level, byte_fallback, fuse, strip, metaspace, detail::replacement>;

  static std::string join(std::vector<std::string> const& tokens, char const* separator) {
    std::string out;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i != 0) out += separator;
      out += tokens[i];
    }
    return out;
  }

  static std::vector<std::string> joined_bytes(std::vector<std::string> const& tokens) {
    std::string bytes;
    for (auto const& token : tokens) append_byte_level_decoded(bytes, token);
    return {is_valid_utf8(bytes) ? std::move(bytes) : replace_invalid_utf8(bytes)};
  }

  // The byte of a token "<0xNN>", or -1.
  static int byte_of(std::string_view token) {
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return -1;
    auto const digit = [](char c) {
      return c >= '0' && c <= '9'   ? c - '0'
             : c >= 'a' && c <= 'f' ? c - 'a' + 10
             : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                    : -1;
    };
    int const high = token[3] == '+' ? 0 : digit(token[3]);  // the reference's number parser takes a sign
    int const low = digit(token[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
  }

  static std::vector<std::string> without_byte_tokens(std::vector<std::string> tokens) {
    std::vector<std::string> out;
    std::string bytes;
    auto const flush = [&] {
      if (bytes.empty()) return;
      if (is_valid_utf8(bytes)) {
        out.push_back(bytes);
      } else {
        for (std::size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (auto& token : tokens) {
      int const byte = byte_of(token);
      if (byte >= 0) {
        bytes.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
        continue;
      }
      flush();
      out.push_back(std::move(token));
    }
    flush();
    return out;
  }

  static std::string stripped(std::string_view token, strip const& cut) {
    std::string_view const content = cut.content;
    for (std::uint64_t i = 0; i < cut.start && token.substr(0, content.size()) == content; ++i)
      token.remove_prefix(content.size());
    for (std::uint64_t i = 0;
         i < cut.stop && token.size() >= content.size() && token.substr(token.size() - content.size()) == content; ++i)
      token.remove_suffix(content.size());
    return std::string(token);
  }

  static std::string with_spaces(std::string_view token, metaspace const& spaces, bool first) {
    std::string out;
    for (std::size_t at = 0; at < token.size();) {
      if (token.substr(at, spaces.replacement.size()) == spaces.replacement) {
        if (!first || !spaces.prepended) out += ' ';
        at += spaces.replacement.size();
      } else {
        out += token[at++];
      }
    }
    return out;
  }

  void add(detail::json_field const& field) {
    std::string const& type = field.at("type").string();
    if (type == "Sequence") {
      auto const list = field.at("decoders");
      for (std::size_t i = 0; i < list.size(); ++i) add(list.at(i));
      return;
    }
    if (steps_.size() >= 64) field.fail("at most 64 decoders", "more");
    if (type == "ByteLevel") {
      steps_.emplace_back(byte_level{});
    } else if (type == "ByteFallback") {
      steps_.emplace_back(byte_fallback{});
    } else if (type == "Fuse") {
      steps_.emplace_back(fuse{});
    } else if (type == "Strip") {
      std::string content;
      append_utf8(content, field.at("content").character());
      steps_.emplace_back(strip{std::move(content), field.at("start").natural(), field.at("stop").natural()});
    } else if (type == "Replace") {
      steps_.emplace_back(detail::replacement(field));
    } else if (type == "Metaspace") {
      std::string replacement;
      append_utf8(replacement, field.at("replacement").character());
      auto const named = field.find("prepend_scheme");
      bool const prepended = named ? named->string() != "never" : field.boolean("add_prefix_space", true);
      steps_.emplace_back(metaspace{std::move(replacement), prepended});
    } else {
      field.at("type").fail("ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace or Sequence");
    }
  }

  bool present_ = false;
  std::vector<step> steps_;
};

}  // namespace v0
}  // namespace slimtrim
