#include "temporary_folder.hpp"

#include <slimtrim/io/json.hpp>

#include <doctest/doctest.h>

#include <random>
#include <string>

namespace io_json_test {

using namespace io_test;
using namespace slimtrim;

TEST_CASE("documents keep order and values") {
  std::string const text = "{\n  \"zeta\": 1,\n  \"alpha\": [\n    1.5,\n    null,\n    \"ü\"\n  ],\n"
                           "  \"beta\": {},\n  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 1000000.0\n}\n";
  ordered_json const document = parse_json(text, "x");
  CHECK(json_text(document) == text);
  CHECK(document == ordered_json::parse(text));
  CHECK(document.begin().key() == "zeta");
  CHECK(parse_json("7", "x") == 7);
  CHECK_THROWS_AS((void)json_text(ordered_json("\xFF")), error);
}

TEST_CASE("limits hold before memory is gone") {
  CHECK(has(message_of([] { (void)parse_json("[1,2,3]", "x", {.most_bytes = 6}); }), "at most 6 bytes, found 7"));
  CHECK(has(message_of([] { (void)parse_json("[1,2,3]", "x", {.most_values = 3}); }), "at most 3 values"));
  CHECK(parse_json("[1,2,3]", "x", {.most_values = 4}).size() == 3);
  std::string const deep = std::string(128, '[') + std::string(128, ']');
  CHECK(parse_json(deep, "x").size() == 1);
  CHECK(has(message_of([&] { (void)parse_json("[" + deep + "]", "x"); }), "nesting"));
  CHECK(has(message_of([] { (void)parse_json(std::string(1'000'000, '['), "x"); }), "nesting"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  CHECK(has(message_of([&] { (void)parse_json(objects, "x"); }), "nesting"));
}

TEST_CASE("a key that comes twice is refused, at any depth") {
  CHECK(has(message_of([] { (void)parse_json(R"({"a":1,"a":2})", "x"); }), "x: 'a': expected once, found twice"));
  CHECK_THROWS_AS((void)parse_json(R"([{"b":{"a":1,"\u0061":2}}])", "x"), input_error);
  CHECK(parse_json(R"([{"a":1},{"a":{"a":2}}])", "x").size() == 2);
}

TEST_CASE("many keys take linear time") {
  std::string text = "{";
  for (int i = 0; i < 100'000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  text.back() = '}';
  CHECK(parse_json(text, "x").size() == 100'000);
}

TEST_CASE("damaged documents are accepted exactly when the plain parser accepts them") {
  std::string const whole = R"({"a":[1,-2.5e3,true,null,"x\u00e9\n"],"b":{"c":{"d":[]}},"e":123456789012345678901})";
  std::mt19937 random(99);
  std::string const favourites = "{}[]\",:0129-.eE\\ utn\x01\xFF";
  int accepted = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text = whole;
    for (auto edits = 1 + random() % 2; edits > 0; --edits) {
      std::size_t const at = random() % text.size();
      if (random() % 3 == 0)
        text.erase(at, 1);
      else if (random() % 2 == 0)
        text[at] = favourites[random() % favourites.size()];
      else
        text.insert(at, 1, favourites[random() % favourites.size()]);
    }
    ordered_json const expected = ordered_json::parse(text, nullptr, false);
    CAPTURE(text);
    ordered_json found;
    std::string const refusal = message_of([&] { found = parse_json(text, "x"); });
    if (refusal.empty()) {
      CHECK(found == expected);
      ++accepted;
    } else {
      // Refusing a double key is the one difference from the plain parser.
      CHECK((expected.is_discarded() || has(refusal, "found twice")));
    }
  }
  CHECK(accepted > 200);
}

TEST_CASE("files") {
  temporary_folder const folder;
  put(folder / "x", "{\"a\": 1}");
  CHECK(read_json_file(folder / "x")["a"] == 1);
  put(folder / "x", "{\"a\": 1");
  CHECK(has(message_of([&] { (void)read_json_file(folder / "x"); }), (folder / "x").native() + ": invalid JSON"));
  CHECK_THROWS_AS((void)read_json_file(folder / "y"), input_error);
}

}  // namespace io_json_test
