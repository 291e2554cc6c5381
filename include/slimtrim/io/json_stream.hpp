// JSON from a file as a stream of events, in memory that does not grow with the file.
//
// The grammar is nlohmann's. What is added is what hostile files need: a NUL byte is an error (the lexer would take
// it for the end of the text and ignore what follows), the text is read in pieces, and no single token may fill
// memory. Readers of big files (tensor headers, shard indices) are small state machines over these events.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/printable.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Where JSON text comes from: a string in memory, or a range of a file that is read 64 KiB at a time.
class json_source {
 public:
  /// No token (a string, or a run of white space) may be longer; keeps memory bounded.
  static constexpr std::uint64_t longest_token = std::uint64_t{4} << 20;

  json_source(std::string_view text, std::string place)
      : place_(std::move(place)), cursor_(text.data()), end_(text.data() + text.size()), consumed_(text.size()) {
    require_no_nul();
  }
  json_source(input_file const& file, std::uint64_t offset, std::uint64_t length)
      : place_(file.place()), file_(&file), offset_(offset), remaining_(length) {
    buffer_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(length, 64 << 10)));
  }
  json_source(json_source const&) = delete;
  json_source& operator=(json_source const&) = delete;

  /// The file's name in messages.
  [[nodiscard]] std::string const& place() const noexcept { return place_; }
  /// Bytes taken so far.
  [[nodiscard]] std::uint64_t position() const noexcept {
    return consumed_ - static_cast<std::uint64_t>(end_ - cursor_);
  }
  /// The reader has dealt with everything up to here.
  void token_done() noexcept { token_begin_ = position(); }

  [[nodiscard]] bool at_end() { return cursor_ == end_ && !refill(); }
  [[nodiscard]] char current() const noexcept { return *cursor_; }
  void advance() noexcept { ++cursor_; }

 private:
  bool refill() {
    if (remaining_ == 0) return false;
    if (position() - token_begin_ > longest_token)
      throw input_error(place_, "invalid JSON: expected no token above " + std::to_string(longest_token) +
                                    " bytes, found a longer one at byte " + std::to_string(token_begin_));
    auto const size = static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, buffer_.size()));
    file_->read_at(offset_ + consumed_, std::as_writable_bytes(std::span<char>(buffer_.data(), size)));
    remaining_ -= size;
    consumed_ += size;
    cursor_ = buffer_.data();
    end_ = cursor_ + size;
    require_no_nul();
    return true;
  }

  void require_no_nul() const {
    if (cursor_ == end_) return;
    auto const* const nul = static_cast<char const*>(std::memchr(cursor_, 0, static_cast<std::size_t>(end_ - cursor_)));
    if (nul != nullptr)
      throw input_error(place_, "invalid JSON: NUL byte at byte " +
                                    std::to_string(consumed_ - static_cast<std::uint64_t>(end_ - nul)));
  }

  std::string place_;
  input_file const* file_ = nullptr;
  std::uint64_t offset_ = 0;
  std::uint64_t remaining_ = 0;
  std::vector<char> buffer_;
  char const* cursor_ = nullptr;
  char const* end_ = nullptr;
  std::uint64_t consumed_ = 0;
  std::uint64_t token_begin_ = 0;
};

namespace detail {

/// A single-pass iterator over a source; the default-constructed one is the end.
class json_source_iterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = char const*;
  using reference = char;

  json_source_iterator() = default;
  explicit json_source_iterator(json_source& source) : source_(&source) {}
  char operator*() const { return source_->current(); }
  json_source_iterator& operator++() {
    source_->advance();
    return *this;
  }
  json_source_iterator operator++(int) {
    source_->advance();
    return *this;
  }
  friend bool operator==(json_source_iterator const& a, json_source_iterator const& b) {
    return a.at_end() == b.at_end();
  }
  friend bool operator!=(json_source_iterator const& a, json_source_iterator const& b) { return !(a == b); }

 private:
  [[nodiscard]] bool at_end() const { return source_ == nullptr || source_->at_end(); }
  json_source* source_ = nullptr;
};

}  // namespace detail

/// Base of readers. Every event is refused with "<place>: <expectation()>, found ..." unless the reader overrides it.
class json_events {
 public:
  explicit json_events(json_source& source) : source_(source) {}
  json_events(json_events const&) = delete;
  json_events& operator=(json_events const&) = delete;
  virtual ~json_events() = default;

  virtual void on_null() { refuse("null"); }
  virtual void on_boolean(bool value) { refuse(value ? "true" : "false"); }
  /// Every integer written with a minus sign, -0 included.
  virtual void on_negative(std::int64_t value) { refuse(value == 0 ? "-0" : std::to_string(value)); }
  virtual void on_unsigned(std::uint64_t value) { refuse(std::to_string(value)); }
  /// Everything with a point or an exponent, and integers that do not fit.
  virtual void on_float(double, std::string const& text) { refuse(printable(text, 40)); }
  virtual void on_string(std::string& value) { refuse("the string '" + printable(value, 80) + "'"); }
  virtual void on_start_object() { refuse("an object"); }
  virtual void on_key(std::string& value) { refuse("the key '" + printable(value, 80) + "'"); }
  virtual void on_end_object() {}
  virtual void on_start_array() { refuse("an array"); }
  virtual void on_end_array() {}

  [[nodiscard]] json_source& source() const noexcept { return source_; }

 protected:
  /// What should have come instead, with its place: "tensor 'x': shape: expected ...".
  [[nodiscard]] virtual std::string expectation() const = 0;
  [[noreturn]] void refuse(std::string const& found) const {
    throw input_error(place(), expectation() + ", found " + found);
  }
  [[nodiscard]] std::string const& place() const noexcept { return source_.place(); }

 private:
  json_source& source_;
};

namespace detail {

/// nlohmann's interface in front of ours. One type for all readers, so that its parser is compiled once.
class json_event_adapter {
 public:
  explicit json_event_adapter(json_events& events) : events_(events) {}

  bool null() { return next(), events_.on_null(), true; }
  bool boolean(bool value) { return next(), events_.on_boolean(value), true; }
  bool number_integer(std::int64_t value) { return next(), events_.on_negative(value), true; }
  bool number_unsigned(std::uint64_t value) { return next(), events_.on_unsigned(value), true; }
  bool number_float(double value, std::string const& text) { return next(), events_.on_float(value, text), true; }
  bool string(std::string& value) { return next(), events_.on_string(value), true; }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(std::size_t) { return next(), events_.on_start_object(), true; }
  bool key(std::string& value) { return next(), events_.on_key(value), true; }
  bool end_object() { return next(), events_.on_end_object(), true; }
  bool start_array(std::size_t) { return next(), events_.on_start_array(), true; }
  bool end_array() { return next(), events_.on_end_array(), true; }
  bool parse_error(std::size_t position, std::string const&, nlohmann::detail::exception const& fault) {
    std::string_view what = fault.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..." says the place in its own way.
    if (auto const colon = what.find(": "); colon != std::string_view::npos) what.remove_prefix(colon + 2);
    throw input_error(events_.source().place(),
                      "invalid JSON at byte " + std::to_string(position) + ": " + printable(what, 160));
  }

 private:
  void next() noexcept { events_.source().token_done(); }
  json_events& events_;
};

}  // namespace detail

/// Feeds all of its source to `events`. Accepts exactly one JSON value and white space (RFC 8259; no comments, no
/// NaN, UTF-8 checked). Throws `input_error` with file and byte position for anything else.
inline void read_json_events(json_events& events) {
  detail::json_event_adapter adapter(events);
  nlohmann::json::sax_parse(detail::json_source_iterator(events.source()), detail::json_source_iterator(), &adapter);
}

}  // namespace v0
}  // namespace slimtrim
