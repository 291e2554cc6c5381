// JSON documents: read within limits, keys kept in order, written in one stable form.
//
// For files that are small by nature (config.json, plans, reports). Files with a million entries are read as events
// (json_stream.hpp): looking a key up in an ordered document takes linear time.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/json_stream.hpp>
#include <slimtrim/io/printable.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

using nlohmann::ordered_json;

/// What a document may cost before it is refused.
struct json_limits {
  std::uint64_t most_bytes = std::uint64_t{16} << 20;
  std::size_t most_values = 400'000;
  std::size_t most_depth = 128;
};

namespace detail {

/// Builds an `ordered_json` from events in linear time and refuses keys that come twice.
class json_document_events final : public json_events {
 public:
  json_document_events(json_source& source, json_limits const& limits) : json_events(source), limits_(limits) {}

  void on_null() override { add(nullptr); }
  void on_boolean(bool value) override { add(value); }
  void on_negative(std::int64_t value) override { add(value); }
  void on_unsigned(std::uint64_t value) override { add(value); }
  void on_float(double value, std::string const&) override { add(value); }
  void on_string(std::string& value) override { add(std::move(value)); }
  void on_start_object() override { open(ordered_json::object()); }
  void on_start_array() override { open(ordered_json::array()); }
  void on_end_object() override { close(); }
  void on_end_array() override { close(); }
  void on_key(std::string& value) override {
    if (!open_.back().keys.insert(value).second)
      throw input_error(place(), "'" + printable(value, 80) + "': expected once, found twice");
    open_.back().key = std::move(value);
  }
  [[nodiscard]] std::string expectation() const override { return "expected JSON"; }
  [[nodiscard]] ordered_json take() { return std::move(result_); }

 private:
  struct level {
    ordered_json value;
    std::string key{};
    std::unordered_set<std::string> keys{};
  };

  void open(ordered_json value) {
    if (open_.size() >= limits_.most_depth)
      throw input_error(place(), "nesting: expected at most " + std::to_string(limits_.most_depth) + " levels");
    count();
    open_.push_back({std::move(value)});
  }
  void close() {
    ordered_json value = std::move(open_.back().value);
    open_.pop_back();
    attach(std::move(value));
  }
  void add(ordered_json value) {
    count();
    attach(std::move(value));
  }
  void count() {
    if (++values_ > limits_.most_values)
      throw input_error(place(), "expected at most " + std::to_string(limits_.most_values) + " values, found more");
  }
  void attach(ordered_json value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else if (open_.back().value.is_array()) {
      open_.back().value.push_back(std::move(value));
    } else {
      // Appended without nlohmann's linear search for the key, which `keys` has answered already.
      open_.back().value.get_ref<ordered_json::object_t&>().emplace_back(std::move(open_.back().key),
                                                                         std::move(value));
    }
  }

  json_limits limits_;
  std::vector<level> open_;
  ordered_json result_;
  std::size_t values_ = 0;
};

[[nodiscard]] inline ordered_json read_json_document(json_source& source, json_limits const& limits) {
  json_document_events events(source, limits);
  read_json_events(events);
  return events.take();
}

}  // namespace detail

/// Parses `text`; `place` names it in messages. Throws `input_error` for anything but one JSON value within `limits`
/// with every key once.
[[nodiscard]] inline ordered_json parse_json(std::string_view text, std::string place, json_limits const& limits = {}) {
  if (text.size() > limits.most_bytes)
    throw input_error(place, "expected at most " + std::to_string(limits.most_bytes) + " bytes, found " +
                                 std::to_string(text.size()));
  json_source source(text, std::move(place));
  return detail::read_json_document(source, limits);
}

/// Reads a JSON file. Errors as `parse_json`.
[[nodiscard]] inline ordered_json read_json(input_file const& file, json_limits const& limits = {}) {
  if (file.size() > limits.most_bytes)
    throw input_error(file.place(), "expected at most " + std::to_string(limits.most_bytes) + " bytes, found " +
                                        std::to_string(file.size()));
  json_source source(file, 0, file.size());
  return detail::read_json_document(source, limits);
}

/// Reads a JSON file that the user named.
[[nodiscard]] inline ordered_json read_json_file(std::filesystem::path const& path, json_limits const& limits = {}) {
  return read_json(input_file::open(path), limits);
}

/// The one form in which documents are written: two spaces, keys in their order, a newline at the end.
/// Throws `error` for text that is not UTF-8.
[[nodiscard]] inline std::string json_text(ordered_json const& document) {
  try {
    return document.dump(2) + "\n";
  } catch (nlohmann::json::exception const& fault) {
    throw error(std::string("json_text: ") + printable(fault.what()));
  }
}

}  // namespace v0
}  // namespace slimtrim
