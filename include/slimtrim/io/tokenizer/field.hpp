// A value of a JSON file together with where it stands, so that every complaint names file and field.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/tokenizer/unicode.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace slimtrim {
inline namespace v0 {
namespace detail {

class json_field {
 public:
  json_field(nlohmann::json const& value, std::string file, std::string path = {})
      : value_(&value), file_(std::move(file)), path_(std::move(path)) {}

  [[nodiscard]] nlohmann::json const& json() const { return *value_; }
  [[nodiscard]] bool is_null() const { return value_->is_null(); }
  [[nodiscard]] std::string const& file() const { return file_; }
  [[nodiscard]] std::string const& path() const { return path_; }

  /// "<file>: <path>: expected <expected>, found <found>"
  [[noreturn]] void fail(std::string const& expected, std::string const& found) const {
    throw input_error(
        file_, (path_.empty() ? std::string("the document") : path_) + ": expected " + expected + ", found " + found);
  }
  [[noreturn]] void fail(std::string const& expected) const { fail(expected, shown()); }

  /// The member, or nothing when it is missing or null.
  [[nodiscard]] std::optional<json_field> find(char const* key) const {
    if (!value_->is_object()) fail("an object");
    auto const it = value_->find(key);
    if (it == value_->end() || it->is_null()) return std::nullopt;
    return json_field(*it, file_, member(key));
  }
  [[nodiscard]] json_field at(char const* key) const {
    std::optional<json_field> found = find(key);
    if (!found) throw input_error(file_, member(key) + ": expected a value, found none");
    return *found;
  }
  [[nodiscard]] std::size_t size() const {
    if (!value_->is_array()) fail("an array");
    return value_->size();
  }
  [[nodiscard]] json_field at(std::size_t index) const {
    if (index >= size()) fail("at least " + std::to_string(index + 1) + " values", std::to_string(size()));
    return json_field((*value_)[index], file_, path_ + "[" + std::to_string(index) + "]");
  }

  [[nodiscard]] bool boolean() const {
    if (!value_->is_boolean()) fail("true or false");
    return value_->get<bool>();
  }
  [[nodiscard]] std::string const& string() const {
    if (!value_->is_string()) fail("a string");
    return value_->get_ref<std::string const&>();
  }
  [[nodiscard]] std::uint64_t natural() const {
    if (!value_->is_number_unsigned()) fail("a whole number that is not negative");
    return value_->get<std::uint64_t>();
  }
  /// A string of exactly one character.
  [[nodiscard]] char32_t character() const {
    std::string const& text = string();
    if (text.empty()) fail("one character", "none");
    utf8_step const step = decode_utf8(text, 0);
    if (step.length != text.size()) fail("one character");
    return step.value;
  }

  [[nodiscard]] bool boolean(char const* key, bool otherwise) const {
    auto const field = find(key);
    return field ? field->boolean() : otherwise;
  }
  [[nodiscard]] std::string string(char const* key, std::string const& otherwise) const {
    auto const field = find(key);
    return field ? field->string() : otherwise;
  }

 private:
  [[nodiscard]] std::string member(std::string_view key) const {
    std::string path = path_;
    if (!path.empty()) path += '.';
    return path.append(key);
  }
  [[nodiscard]] std::string shown() const {
    if (value_->is_string()) return shown_text(value_->get_ref<std::string const&>());
    if (value_->is_number() || value_->is_boolean() || value_->is_null()) return value_->dump();
    return value_->is_array() ? "an array" : "an object";
  }

  nlohmann::json const* value_;
  std::string file_;
  std::string path_;
};

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
