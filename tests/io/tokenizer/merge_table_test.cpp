#include <slimtrim/io/tokenizer/merge_table.hpp>

#include <doctest/doctest.h>

#include <map>
#include <utility>

namespace io_tokenizer_merge_table_test {

using namespace slimtrim;

TEST_CASE("an empty table merges nothing") {
  merge_table const table;
  CHECK(table.find(0, 0).rank == merge_table::no_rank);
  CHECK(table.size() == 0);
}

TEST_CASE("rules are found by pair, in order, and the last of equal pairs counts") {
  merge_table table;
  std::map<std::pair<token_id, token_id>, std::pair<std::uint32_t, token_id>> expected;
  std::uint32_t state = 1;
  for (std::uint32_t rank = 0; rank < 4000; ++rank) {
    state = state * 1664525U + 1013904223U;
    token_id const left = (state >> 8) % 97, right = (state >> 20) % 89;
    table.insert(left, right, {rank, rank + 7});
    expected[{left, right}] = {rank, rank + 7};
  }
  CHECK(table.size() == expected.size());
  for (token_id left = 0; left < 100; ++left) {
    for (token_id right = 0; right < 100; ++right) {
      auto const it = expected.find({left, right});
      merge_rule const rule = table.find(left, right);
      REQUIRE(rule.rank == (it == expected.end() ? merge_table::no_rank : it->second.first));
      if (it != expected.end()) REQUIRE(rule.merged == it->second.second);
    }
  }
}

}  // namespace io_tokenizer_merge_table_test
