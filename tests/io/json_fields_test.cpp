#include "temporary_folder.hpp"

#include <slimtrim/io/json_fields.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_json_fields_test {

using namespace io_test;
using namespace slimtrim;

TEST_CASE("every hostile value of an integer field is refused with file and field") {
  for (char const* text : {"null", "\"4\"", "-1", "0", "11", "2147483648", "9223372036854775808",
                           "18446744073709551615", "1e300", "4.0", "true", "[4]", "{}"}) {
    CAPTURE(text);
    ordered_json const config = parse_json(std::string("{\"layers\":") + text + "}", "config.json");
    std::string const message =
        message_of([&] { (void)require_integer(config, "layers", 1, 10, "config.json"); });
    CHECK(has(message, "config.json: field 'layers': expected an integer from 1 to 10, found"));
  }
  ordered_json const config = parse_json(R"({"a":1,"b":10,"c":-5,"n":null})", "x");
  CHECK(require_integer(config, "a", 1, 10, "x") == 1);
  CHECK(require_integer(config, "b", 1, 10, "x") == 10);
  CHECK(require_integer(config, "c", -5, 10, "x") == -5);
  CHECK(has(message_of([&] { (void)require_integer(config, "d", 0, 9, "x"); }), "x: field 'd': expected, not found"));
  CHECK_FALSE(optional_integer(config, "d", 0, 9, "x"));
  CHECK_FALSE(optional_integer(config, "n", 0, 9, "x"));
  CHECK(optional_integer(config, "a", 0, 9, "x") == 1);
  CHECK_THROWS_AS((void)optional_integer(config, "b", 0, 9, "x"), input_error);
}

TEST_CASE("numbers, strings and truth values") {
  ordered_json const config = parse_json(R"({"n":1e-5,"i":2,"s":"text","t":true})", "x");
  CHECK(require_number(config, "n", 0, 1, "x") == 1e-5);
  CHECK(require_number(config, "i", 0, 2, "x") == 2.0);
  CHECK_THROWS_AS((void)require_number(config, "i", 0, 1, "x"), input_error);
  CHECK_THROWS_AS((void)require_number(config, "s", 0, 1, "x"), input_error);
  CHECK(require_string(config, "s", "x") == "text");
  CHECK_THROWS_AS((void)require_string(config, "t", "x"), input_error);
  CHECK(require_boolean(config, "t", "x"));
  CHECK_THROWS_AS((void)require_boolean(config, "i", "x"), input_error);
  CHECK_FALSE(optional_string(config, "u", "x"));
  CHECK(optional_string(config, "s", "x") == "text");
  CHECK_FALSE(optional_boolean(config, "u", "x"));
  CHECK(optional_boolean(config, "t", "x") == true);
  CHECK_FALSE(optional_number(config, "u", 0, 1, "x"));
  CHECK(optional_number(config, "n", 0, 1, "x") == 1e-5);
  CHECK(find_field(config, "u") == nullptr);
  CHECK(find_field(ordered_json(3), "u") == nullptr);
  CHECK(has(message_of([&] { (void)require_integer(config, "s", 0, 1, "x"); }), "found \"text\""));
}

}  // namespace io_json_fields_test
