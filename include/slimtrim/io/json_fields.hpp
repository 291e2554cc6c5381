// Fields of a JSON object, taken out with their type and range checked.
//
// Values of a config.json are chosen by strangers: each is believed only inside the range that its use can bear, and
// a refusal names file, field, what was expected and what was found.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/io/printable.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

namespace detail {

[[nodiscard]] inline std::string json_found(ordered_json const& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  // `replace` because a value that a program built itself need not be UTF-8.
  return printable(value.dump(-1, ' ', false, ordered_json::error_handler_t::replace), 60);
}

[[noreturn]] inline void refuse_field(std::string_view place, std::string_view key, std::string const& expected,
                                      std::string const& found) {
  throw input_error(place, "field '" + printable(key) + "': expected " + expected + ", found " + found);
}

}  // namespace detail

/// The value under `key`, or null when `object` has none (or is no object). A JSON `null` counts as present.
[[nodiscard]] inline ordered_json const* find_field(ordered_json const& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  auto const at = object.find(std::string(key));
  return at == object.end() ? nullptr : &*at;
}

/// The value under `key`. Throws `input_error("<place>: field '<key>': ...")` when there is none.
[[nodiscard]] inline ordered_json const& require_field(ordered_json const& object, std::string_view key,
                                                       std::string_view place) {
  if (ordered_json const* const value = find_field(object, key)) return *value;
  throw input_error(place, "field '" + printable(key) + "': expected, not found");
}

/// `value` as an integer from `least` to `most`. Only integers in the text count: 1.0 and "1" are refused.
[[nodiscard]] inline index_t integer_value(ordered_json const& value, std::string_view key, index_t least, index_t most,
                                           std::string_view place) {
  bool inside = false;
  index_t number = 0;
  if (value.is_number_unsigned()) {
    auto const raw = value.get<std::uint64_t>();
    number = raw <= static_cast<std::uint64_t>(PTRDIFF_MAX) ? static_cast<index_t>(raw) : PTRDIFF_MAX;
    inside = raw <= static_cast<std::uint64_t>(PTRDIFF_MAX);
  } else if (value.is_number_integer()) {
    number = static_cast<index_t>(value.get<std::int64_t>());
    inside = true;
  }
  if (!inside || number < least || number > most)
    detail::refuse_field(place, key, "an integer from " + std::to_string(least) + " to " + std::to_string(most),
                         detail::json_found(value));
  return number;
}

/// `value` as a finite number from `least` to `most`; integers are accepted.
[[nodiscard]] inline double number_value(ordered_json const& value, std::string_view key, double least, double most,
                                         std::string_view place) {
  double const number = value.is_number() ? value.get<double>() : 0;
  if (!value.is_number() || !std::isfinite(number) || number < least || number > most)
    detail::refuse_field(place, key,
                         "a number from " + ordered_json(least).dump() + " to " + ordered_json(most).dump(),
                         detail::json_found(value));
  return number;
}

/// Field `key` of `object` as an integer from `least` to `most`.
[[nodiscard]] inline index_t require_integer(ordered_json const& object, std::string_view key, index_t least,
                                             index_t most, std::string_view place) {
  return integer_value(require_field(object, key, place), key, least, most, place);
}

/// Field `key` of `object` as a finite number from `least` to `most`.
[[nodiscard]] inline double require_number(ordered_json const& object, std::string_view key, double least, double most,
                                           std::string_view place) {
  return number_value(require_field(object, key, place), key, least, most, place);
}

/// Field `key` of `object` as a string.
[[nodiscard]] inline std::string require_string(ordered_json const& object, std::string_view key,
                                                std::string_view place) {
  ordered_json const& value = require_field(object, key, place);
  if (!value.is_string()) detail::refuse_field(place, key, "a string", detail::json_found(value));
  return value.get<std::string>();
}

/// Field `key` of `object` as true or false.
[[nodiscard]] inline bool require_boolean(ordered_json const& object, std::string_view key, std::string_view place) {
  ordered_json const& value = require_field(object, key, place);
  if (!value.is_boolean()) detail::refuse_field(place, key, "true or false", detail::json_found(value));
  return value.get<bool>();
}

/// As `require_integer`, but a missing field or `null` gives nothing.
[[nodiscard]] inline std::optional<index_t> optional_integer(ordered_json const& object, std::string_view key,
                                                             index_t least, index_t most, std::string_view place) {
  ordered_json const* const value = find_field(object, key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return integer_value(*value, key, least, most, place);
}

/// As `require_number`, but a missing field or `null` gives nothing.
[[nodiscard]] inline std::optional<double> optional_number(ordered_json const& object, std::string_view key,
                                                           double least, double most, std::string_view place) {
  ordered_json const* const value = find_field(object, key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return number_value(*value, key, least, most, place);
}

/// As `require_string`, but a missing field or `null` gives nothing.
[[nodiscard]] inline std::optional<std::string> optional_string(ordered_json const& object, std::string_view key,
                                                                std::string_view place) {
  ordered_json const* const value = find_field(object, key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return require_string(object, key, place);
}

/// As `require_boolean`, but a missing field or `null` gives nothing.
[[nodiscard]] inline std::optional<bool> optional_boolean(ordered_json const& object, std::string_view key,
                                                          std::string_view place) {
  ordered_json const* const value = find_field(object, key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return require_boolean(object, key, place);
}

}  // namespace v0
}  // namespace slimtrim
