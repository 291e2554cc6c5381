// DeepSeek-MoE against the float64 numbers of deepseek_golden.py: leading dense layer, shared experts, softmax weights
// that are not renormalised, two shards, mixed types.
//
// Tolerance of logits: each of 3 layers adds float32 rounding of sums of at most 48 terms; with logits of size 5 that is about
// 48 * 3 * 6e-8 * 5 = 4e-5 at the worst; of a softmax weight a quarter of that.
#include <model/support.hpp>

#include <doctest/doctest.h>

namespace model_deepseek_test {

using namespace slimtrim_tests;

namespace {

constexpr double tolerance = 4e-5;

std::filesystem::path folder() {
  return std::filesystem::path(SLIMTRIM_SOURCE_DIR) / "tests" / "data" / "tiny-deepseek";
}

struct routing_record {
  std::vector<index_t> layers;
  std::vector<std::vector<std::int32_t>> indices;
  std::vector<std::vector<float>> weights;
  std::vector<index_t> dense, shared;
  void router_result(index_t layer, routing_result r) {
    layers.push_back(layer);
    indices.emplace_back(r.indices.data, r.indices.data + r.indices.size());
    weights.emplace_back(r.weights.data, r.weights.data + r.weights.size());
  }
  void dense_hidden(index_t layer, matrix_view<float const> H) {
    dense.push_back(layer);
    CHECK(H.extent(1) == 48);
  }
  void shared_hidden(index_t layer, matrix_view<float const> H) {
    shared.push_back(layer);
    CHECK(H.extent(1) == 32);
  }
};

}  // namespace

TEST_CASE("tiny DeepSeek-MoE: logits and routing") {
  auto const files = std::make_shared<checkpoint const>(checkpoint::open(folder()));
  model const m = load_model(files);
  CHECK(m.config.family == &deepseek_family);
  CHECK(m.config.layer(0).feed_forward == feed_forward_kind::dense);
  CHECK(m.config.layer(1).experts == 8);
  CHECK(m.config.layer(1).shared_intermediate == 32);
  auto const golden = read_json_file(folder() / "golden.json");
  auto const ids = golden.at("ids").get<std::vector<std::uint32_t>>();
  auto const tokens = static_cast<index_t>(ids.size());
  forward_workspace work;
  thread_pool pool(2);
  eigen_backend const backend(pool);
  tensor<float, 2> states(tokens, m.config.hidden), logits(tokens, m.config.vocabulary);
  routing_record seen;
  forward(backend, m, ids, states.view(), work, seen);
  final_logits(backend, m.config, m.ends, states.view(), logits.view(), work);
  double worst = 0, largest = 0;
  for (index_t t = 0; t < tokens; ++t)
    for (index_t i = 0; i < m.config.vocabulary; ++i) {
      double const expected = golden.at("logits")[static_cast<std::size_t>(t)][static_cast<std::size_t>(i)].get<double>();
      worst = std::max(worst, std::abs(static_cast<double>(logits(t, i)) - expected));
      largest = std::max(largest, std::abs(expected));
    }
  CHECK(worst < tolerance);
  CHECK(largest < 10);
  CHECK(largest > 1);

  CHECK(seen.layers == std::vector<index_t>{1, 2});
  CHECK(seen.dense == std::vector<index_t>{0});
  CHECK(seen.shared == std::vector<index_t>{1, 2});
  for (std::size_t l = 0; l < 2; ++l)
    for (std::size_t t = 0; t < ids.size(); ++t)
      for (std::size_t slot = 0; slot < 3; ++slot) {
        CHECK(seen.indices[l][t * 3 + slot] == golden.at("experts")[l + 1][t][slot].get<std::int32_t>());
        CHECK(std::abs(static_cast<double>(seen.weights[l][t * 3 + slot]) -
                       golden.at("weights")[l + 1][t][slot].get<double>()) < 1e-5);
      }
}

}  // namespace model_deepseek_test
