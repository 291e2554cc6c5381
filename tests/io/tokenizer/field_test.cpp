#include <slimtrim/io/tokenizer/field.hpp>

#include <doctest/doctest.h>

namespace io_tokenizer_field_test {

using namespace slimtrim;

TEST_CASE("fields are read and named") {
  auto const json =
      nlohmann::json::parse(R"({"a": {"list": [1, true, "x", "\u2581", "", -1, 1.5, {}, []]}, "none": null})");
  detail::json_field const root(json, "t.json");
  auto const list = root.at("a").at("list");
  CHECK(list.path() == "a.list");
  CHECK(list.size() == 9);
  CHECK(list.at(std::size_t{0}).natural() == 1);
  CHECK(list.at(1).boolean());
  CHECK(list.at(2).string() == "x");
  CHECK(list.at(3).character() == 0x2581);
  CHECK(!root.find("none"));
  CHECK(!root.find("absent"));
  CHECK(root.boolean("absent", true));
  CHECK(root.string("absent", "y") == "y");

  CHECK_THROWS_WITH_AS((void)root.at("none"), "t.json: none: expected a value, found none", input_error);
  CHECK_THROWS_WITH_AS((void)root.size(), "t.json: the document: expected an array, found an object", input_error);
  CHECK_THROWS_WITH_AS((void)list.at(1).string(), "t.json: a.list[1]: expected a string, found true", input_error);
  CHECK_THROWS_WITH_AS((void)list.at(2).boolean(), "t.json: a.list[2]: expected true or false, found \"x\"",
                       input_error);
  CHECK_THROWS_WITH_AS((void)list.at(9), "t.json: a.list: expected at least 10 values, found 9", input_error);
  CHECK_THROWS_AS((void)list.at(2).at(std::size_t{0}), input_error);
  CHECK_THROWS_AS((void)list.at(4).character(), input_error);
  CHECK_THROWS_AS((void)list.at(5).natural(), input_error);
  CHECK_THROWS_AS((void)list.at(6).natural(), input_error);
  CHECK_THROWS_WITH_AS((void)list.at(8).find("k"), "t.json: a.list[8]: expected an object, found an array",
                       input_error);
}

}  // namespace io_tokenizer_field_test
