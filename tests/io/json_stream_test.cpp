#include "temporary_folder.hpp"

#include <slimtrim/io/json_stream.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace io_json_stream_test {

using namespace io_test;
using namespace slimtrim;

namespace {

/// Writes events down as text.
class recorder final : public json_events {
 public:
  using json_events::json_events;
  std::string log;
  void on_null() override { log += "null "; }
  void on_negative(std::int64_t value) override { log.append("-").append(std::to_string(-value)).append(" "); }
  void on_unsigned(std::uint64_t value) override { log += std::to_string(value) + " "; }
  void on_float(double, std::string const& text) override { log += "f" + text + " "; }
  void on_string(std::string& value) override { log += "'" + value + "' "; }
  void on_start_object() override { log += "{ "; }
  void on_key(std::string& value) override { log += value + ": "; }
  void on_end_object() override { log += "} "; }
  void on_start_array() override { log += "[ "; }
  void on_end_array() override { log += "] "; }

 protected:
  std::string expectation() const override { return "expected no truth"; }
};

std::string events_of(std::string const& text) {
  json_source source(text, "here");
  recorder events(source);
  read_json_events(events);
  return events.log;
}

}  // namespace

TEST_CASE("events come in order, numbers by how they are written") {
  CHECK(events_of(R"({"a":[1,-1,-0,1.5,1e2,18446744073709551616],"b":{"c":null,"d":"x"}})") ==
        "{ a: [ 1 -1 -0 f1.5 f1e2 f18446744073709551616 ] b: { c: null d: 'x' } } ");
}

TEST_CASE("an event nobody takes is refused with what was expected") {
  CHECK(message_of([] { (void)events_of("[true]"); }) == "here: expected no truth, found true");
}

TEST_CASE("anything but one value is refused with its place") {
  for (std::string const& text : {std::string(), std::string("{"), std::string("[1,]"), std::string("1 2"),
                                  std::string("[01]"), std::string("[1e400]"), std::string("[NaN]"), std::string("//\n1"),
                                  std::string("[1]\0", 4), std::string("\"\xC0\x80\""), std::string("[1}")}) {
    CAPTURE(text);
    CHECK(has(message_of([&] { (void)events_of(text); }), "here: invalid JSON"));
  }
}

TEST_CASE("a file is read in pieces, tokens may lie across their borders") {
  temporary_folder const folder;
  std::string text = "[";
  std::string expected = "[ ";
  for (int i = 0; i < 40'000; ++i) {
    text += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\"";
    expected += "'" + std::to_string(i) + "' ";
  }
  text += "]";
  put(folder / "x", "garbage" + text + "garbage");
  input_file const file = input_file::open(folder / "x");
  json_source source(file, 7, text.size());
  recorder events(source);
  read_json_events(events);
  CHECK(events.log == expected + "] ");
  CHECK(source.position() == text.size());
}

}  // namespace io_json_stream_test
