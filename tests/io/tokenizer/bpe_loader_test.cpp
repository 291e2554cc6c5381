#include <slimtrim/io/tokenizer/bpe_loader.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>

namespace io_tokenizer_bpe_loader_test {

using namespace slimtrim;

namespace {

bpe_model load(std::string const& model) {
  auto document = detail::read_tokenizer_document("{\"model\": " + model + "}", "t.json", {});
  nlohmann::json const rest = std::move(document.rest);
  return detail::load_bpe(std::move(document), detail::json_field(rest, "t.json").at("model"));
}

void refuse(std::string const& model, char const* message) {
  CHECK_THROWS_WITH_AS((void)load(model), message, input_error);
}

}  // namespace

TEST_CASE("options and merges are taken from the file") {
  bpe_model const model =
      load(R"({"type": "BPE", "unk_token": "u", "fuse_unk": true, "byte_fallback": true, "dropout": 0.0,
      "ignore_merges": true, "continuing_subword_prefix": "", "vocab": {"a": 0, "b": 1, "ab": 2, "u": 3}, "merges": ["a b"]})");
  CHECK(model.options().unknown == token_id{3});
  CHECK(model.options().fuse_unknown);
  CHECK(model.options().byte_fallback);
  CHECK(model.options().ignore_merges);
  CHECK(!model.options().cuts_at_space_mark);  // which is no token here
  bpe_workspace work;
  std::vector<token_id> ids;
  model.encode_word("abxa", work, ids);
  CHECK(ids == std::vector<token_id>{2, 3, 0});
  CHECK(load(R"({"vocab": {}, "merges": []})").tokens().size() == 0);  // old files name no type
}

TEST_CASE("text may be cut before a run of space marks unless a rule forbids it") {
  CHECK(load(R"({"vocab": {"▁": 0, "▁▁": 1, "a": 2, "▁▁a": 3}, "merges": ["▁ ▁", "▁▁ a"]})")
            .options()
            .cuts_at_space_mark);
  CHECK(!load(R"({"vocab": {"▁": 0, "a": 2, "a▁": 3}, "merges": ["a ▁"]})").options().cuts_at_space_mark);
  CHECK(!detail::has_inner_space_mark("▁▁ab"));
  CHECK(detail::has_inner_space_mark("▁a▁"));
  CHECK(detail::has_inner_space_mark("é▁"));
}

TEST_CASE("models that are not BPE or contradict themselves are refused") {
  refuse(R"({"type": "WordPiece"})", "t.json: model.type: expected BPE, found \"WordPiece\"");
  refuse(R"({"dropout": 0.1})", "t.json: model.dropout: expected no dropout, found 0.1");
  refuse(R"({"end_of_word_suffix": "</w>"})",
         "t.json: model.end_of_word_suffix: expected an empty string or null, found \"</w>\"");
  refuse(R"({"merges": []})", "t.json: model.vocab: expected a value, found none");
  refuse(R"({"vocab": {}})", "t.json: model.merges: expected a value, found none");
  refuse(R"({"vocab": {}, "merges": [], "unk_token": "u"})",
         "t.json: model.unk_token: expected a token of model.vocab, found \"u\"");
  refuse(R"({"vocab": {"a": 0}, "merges": ["a z"]})",
         "t.json: model.merges[0]: expected tokens of model.vocab, found \"z\"");
  refuse(R"({"vocab": {"a": 0}, "merges": ["z a"]})",
         "t.json: model.merges[0]: expected tokens of model.vocab, found \"z\"");
  refuse(R"({"vocab": {"a": 0}, "merges": [["a", "a"]]})",
         "t.json: model.merges[0]: expected tokens of model.vocab, found \"aa\"");
}

}  // namespace io_tokenizer_bpe_loader_test
