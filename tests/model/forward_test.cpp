#include <slimtrim/model/forward.hpp>

#include <model/support.hpp>

#include <doctest/doctest.h>

#include <cstring>

namespace model_forward_test {

using namespace slimtrim_tests;

TEST_CASE("any executor gives the same bits; the reference backend the same numbers") {
  model const m = small_model(small_mixtral_config());
  auto const ids = some_tokens(70, 40);
  thread_pool pool(3);
  auto const serial = all_logits(eigen_backend(), m, ids), threaded = all_logits(eigen_backend(pool), m, ids);
  CHECK(std::memcmp(serial.view().data, threaded.view().data, 70 * 40 * sizeof(float)) == 0);
  CHECK(largest_difference(as_const(serial.view()), as_const(all_logits(reference_backend(), m, ids).view())) < 1e-4);
}

TEST_CASE("rows of one call do not see later rows or other sequences") {
  model const m = small_model(small_mixtral_config());
  eigen_backend const backend;
  auto ids = some_tokens(20, 40);
  auto const before = all_logits(backend, m, ids);
  ids[15] = (ids[15] + 1) % 40;
  auto const after = all_logits(backend, m, ids);
  CHECK(largest_difference(rows(as_const(before.view()), 0, 15), rows(as_const(after.view()), 0, 15)) < 1e-5);
  CHECK(largest_difference(rows(as_const(before.view()), 15, 5), rows(as_const(after.view()), 15, 5)) > 1e-3);
}

TEST_CASE("dropped parts pass the stream on; expert counts differ from layer to layer") {
  ordered_json config = small_mixtral_config();
  config["num_local_experts"] = ordered_json::array({5, -1, 1});
  config["drop_attn_list"] = ordered_json::array({1});
  model const m = small_model(config);
  CHECK_FALSE(m.layers[1].attention);
  CHECK_FALSE(m.layers[1].moe);
  CHECK(m.layers[1].feed_forward_norm.empty());
  CHECK(m.layers[2].moe->rule.top_k == 1);
  forward_workspace work;
  auto const ids = some_tokens(9, 40);
  tensor<float, 2> X(9, 24);
  embed(m.ends, ids, X.view());
  auto const before = X.clone();
  forward_layer(eigen_backend(), m.config, m.layers[1], 1, X.view(), work);
  CHECK(largest_difference(as_const(X.view()), as_const(before.view())) == 0);

  // The same weights with layer 1 left out altogether.
  ordered_json shorter = small_mixtral_config();
  shorter["num_hidden_layers"] = 2;
  shorter["num_local_experts"] = ordered_json::array({5, 1});
  model without{read_model_config(shorter, "config.json"), m.ends, {m.layers[0], m.layers[2]}};
  CHECK(largest_difference(as_const(all_logits(eigen_backend(), m, ids).view()),
                           as_const(all_logits(eigen_backend(), without, ids).view())) == 0);
}

namespace {

struct hooks {
  std::vector<std::string> seen;
  index_t shape_faults = 0;
  void note(char const* name, index_t layer, matrix_view<float const> x, index_t width) {
    seen.push_back(std::string(name) + std::to_string(layer));
    if (x.extent(0) != 7 || x.extent(1) != width) ++shape_faults;
  }
  void block_input(index_t l, matrix_view<float const> x) { note("block_input ", l, x, 24); }
  void attention_input(index_t l, matrix_view<float const> x) { note("attention_input ", l, x, 24); }
  void attention_context(index_t l, matrix_view<float const> x) { note("attention_context ", l, x, 24); }
  void attention_residual(index_t l, matrix_view<float const> x) { note("attention_residual ", l, x, 24); }
  void feed_forward_input(index_t l, matrix_view<float const> x) { note("feed_forward_input ", l, x, 24); }
  void router_result(index_t l, routing_result r) { note("router_result ", l, r.logits, 5); }
  void feed_forward_output(index_t l, matrix_view<float const> x) { note("feed_forward_output ", l, x, 24); }
  void block_output(index_t l, matrix_view<float const> x) { note("block_output ", l, x, 24); }
};

}  // namespace

TEST_CASE("hooks come in the documented order, also for dropped parts") {
  ordered_json config = small_mixtral_config();
  config["num_hidden_layers"] = 2;
  config["num_local_experts"] = ordered_json::array({5, -1});
  config["drop_attn_list"] = ordered_json::array({1});
  model const m = small_model(config);
  forward_workspace work;
  tensor<float, 2> X(7, 24);
  hooks seen;
  forward(eigen_backend(), m, some_tokens(7, 40), X.view(), work, seen);
  CHECK(seen.shape_faults == 0);
  CHECK(seen.seen == std::vector<std::string>{"block_input 0", "attention_input 0", "attention_context 0",
                                              "attention_residual 0", "feed_forward_input 0", "router_result 0",
                                              "feed_forward_output 0", "block_output 0", "block_input 1",
                                              "attention_residual 1", "block_output 1"});
}

TEST_CASE("the forward pass refuses what it cannot do") {
  model m = small_model(small_mixtral_config());
  forward_workspace work;
  tensor<float, 2> X(3, 24);
  X.fill(0);
  token_sequence const wrong[1] = {{2, 0, nullptr}};
  CHECK_THROWS_WITH_AS(forward_layer(eigen_backend(), m.config, m.layers[0], 0, X.view(),
                                     std::span<token_sequence const>(wrong), work),
                       "forward: rows of all sequences together: expected 3, found 2", error);
  m.config.sliding_window = 2;
  CHECK_THROWS_WITH_AS(forward_layer(eigen_backend(), m.config, m.layers[0], 0, X.view(), work),
                       "forward: sequences of 3 tokens: expected at most sliding_window = 2", error);
}

TEST_CASE("tied embeddings serve as the head") {
  ordered_json config = small_mixtral_config();
  config["tie_word_embeddings"] = true;
  model const m = small_model(config);
  CHECK(m.ends.head.storage == m.ends.embedding.storage);
}

}  // namespace model_forward_test
