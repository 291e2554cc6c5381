// The special tokens that go around an encoded text: TemplateProcessing and its older forms, for a single sequence.
#pragma once

#include <slimtrim/io/tokenizer/field.hpp>
#include <slimtrim/io/tokenizer/vocabulary.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

class post_processor {
 public:
  /// Adding nothing.
  post_processor() = default;

  /// From the `post_processor` field. Throws `input_error` naming what is unknown or malformed.
  explicit post_processor(detail::json_field const& field) { add(field); }

  [[nodiscard]] std::vector<token_id> const& before() const { return before_; }
  [[nodiscard]] std::vector<token_id> const& after() const { return after_; }

 private:
  void add(detail::json_field const& field) {
    std::string const& type = field.at("type").string();
    if (type == "Sequence") {
      auto const list = field.at("processors");
      for (std::size_t i = 0; i < list.size(); ++i) add(list.at(i));
    } else if (type == "TemplateProcessing") {
      add_template(field);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      before_.insert(before_.begin(), id_of(field.at("cls").at(std::size_t{1})));
      after_.push_back(id_of(field.at("sep").at(std::size_t{1})));
    } else if (type != "ByteLevel") {  // which only adjusts offsets
      field.at("type").fail("TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing or Sequence");
    }
  }

  void add_template(detail::json_field const& field) {
    auto const pieces = field.at("single");
    std::vector<token_id> left;
    bool text_seen = false;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      auto const piece = pieces.at(i);
      if (auto const sequence = piece.find("Sequence")) {
        if (text_seen || sequence->at("id").string() != "A") sequence->fail("the sequence A, once");
        text_seen = true;
        continue;
      }
      auto const name = piece.at("SpecialToken").at("id");
      auto const ids = field.at("special_tokens").at(name.string().c_str()).at("ids");
      for (std::size_t k = 0; k < ids.size(); ++k) (text_seen ? after_ : left).push_back(id_of(ids.at(k)));
    }
    if (!text_seen) pieces.fail("the sequence A, once", "none");
    before_.insert(before_.begin(), left.begin(), left.end());
  }

  static token_id id_of(detail::json_field const& field) {
    auto const id = field.natural();
    if (id >= vocabulary::id_limit) field.fail("an id below " + std::to_string(vocabulary::id_limit));
    return static_cast<token_id>(id);
  }

  std::vector<token_id> before_;
  std::vector<token_id> after_;
};

}  // namespace v0
}  // namespace slimtrim
