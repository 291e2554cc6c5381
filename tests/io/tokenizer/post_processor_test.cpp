#include <slimtrim/io/tokenizer/post_processor.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace io_tokenizer_post_processor_test {

using namespace slimtrim;

namespace {

post_processor processor(std::string const& json) {
  auto const parsed = nlohmann::json::parse(json);
  return post_processor(detail::json_field(parsed, "t.json", "post_processor"));
}

std::string with(std::string const& single) {
  return R"({"type": "TemplateProcessing", "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1, 9], "tokens": []},
             "</s>": {"id": "</s>", "ids": [2], "tokens": []}}, "single": )" +
         single + "}";
}

using ids = std::vector<token_id>;

}  // namespace

TEST_CASE("tokens before and after the text") {
  auto const both =
      processor(with(R"([{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                       {"SpecialToken": {"id": "</s>", "type_id": 0}}])"));
  CHECK(both.before() == ids{1, 9});
  CHECK(both.after() == ids{2});
  CHECK(processor(with(R"([{"Sequence": {"id": "A", "type_id": 0}}])")).before().empty());
  CHECK(processor(R"({"type": "ByteLevel"})").after().empty());
  auto const bert = processor(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
                                  {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}]})");
  CHECK(bert.before() == ids{0});
  CHECK(bert.after() == ids{2});
}

TEST_CASE("templates that do not hold the text once are refused") {
  CHECK_THROWS_AS(processor(with("[]")), input_error);
  CHECK_THROWS_AS(processor(with(R"([{"Sequence": {"id": "B", "type_id": 0}}])")), input_error);
  CHECK_THROWS_AS(processor(with(R"([{"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}}])")), input_error);
  CHECK_THROWS_AS(processor(with(R"([{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<x>"}}])")), input_error);
  CHECK_THROWS_AS(processor(R"({"type": "Other"})"), input_error);
  CHECK_THROWS_AS(processor(R"({"type": "BertProcessing", "sep": ["a"], "cls": ["b", 99999999999]})"), input_error);
  CHECK_THROWS_AS(processor(R"({"type": "BertProcessing", "sep": ["a"], "cls": ["b", 1]})"), input_error);
}

}  // namespace io_tokenizer_post_processor_test
