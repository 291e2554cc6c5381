// What may be said about the inside of a layer's experts, and what is refused, field by field.
#include <slimtrim/pipeline/layer_plan.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>

namespace pipeline_layer_plan_test {

using namespace slimtrim;

namespace {

layer_config shape() {
  layer_config s;
  s.experts = 6;
  s.top_k = 2;
  s.intermediate = 4;
  return s;
}

// Experts 0, 2, 4 stay: 0 is a constant, 2 the average of 1, 2 and 3; 5 went.
layer_plan good() {
  layer_plan p;
  p.experts = {0, 2, 4};
  p.novices = {{0, {1.0F, 2.0F}}};
  p.merges = {{2, {1, 2, 3}, {0.25, 0.5, 0.25}, {{3, 2, 1, 0}, {}, {0, 1, 3, 2}}}};
  p.neurons = {{2, {0, 3}}, {4, {1, 2}}};
  return p;
}

std::string refusal(std::function<void(layer_plan&)> const& change, layer_config const& s = shape()) {
  layer_plan p = good();
  change(p);
  try {
    check_layer_plan(p, s, 2, "p.json", "layers[3]");
  } catch (input_error const& e) {
    return e.what();
  }
  return "accepted";
}

bool has(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("what fits") {
  CHECK(refusal([](layer_plan&) {}) == "accepted");
  layer_plan const p = good();
  CHECK(p.find_novice(0) != nullptr);
  CHECK(p.find_novice(2) == nullptr);
  CHECK(p.find_merge(2)->members.size() == 3);
  CHECK(p.find_merge(3) == nullptr);
  CHECK(p.changes_weights(4));
  CHECK_FALSE(p.changes_weights(0));
  CHECK_FALSE(p.sliced_before(p.merges[0]));
  // Neurons that went before the merge: every member has its own.
  auto const before = [](layer_plan& q) {
    q.neurons = {{1, {0, 1}}, {2, {0, 3}}, {3, {2, 3}}, {4, {1, 2}}};
    q.merges[0].orders = {{1, 0}, {}, {}};
  };
  CHECK(refusal(before) == "accepted");
  CHECK(refusal([](layer_plan& q) { q.merges[0].orders.clear(); }) == "accepted");
}

TEST_CASE("novices") {
  CHECK(has(refusal([](layer_plan& p) { p.novices[0].expert = 5; }), "p.json: field 'layers[3].novices[0].expert': expected ascending experts that stay, found 5"));
  CHECK(has(refusal([](layer_plan& p) { p.novices.push_back(p.novices[0]); }), "novices[1].expert"));
  CHECK(has(refusal([](layer_plan& p) { p.novices[0].constant.pop_back(); }), "novices[0].constant': expected 2 numbers (hidden_size), found 1"));
  CHECK(has(refusal([](layer_plan& p) { p.novices[0].constant[1] = std::numeric_limits<float>::infinity(); }), "novices[0].constant': expected finite"));
}

TEST_CASE("neurons") {
  CHECK(has(refusal([](layer_plan& p) { p.neurons[4] = {1}; }), "neurons of expert 4': expected 2 neurons as its neighbours have, found 1"));
  CHECK(has(refusal([](layer_plan& p) { p.neurons[4] = {2, 1}; }), "neurons of expert 4': expected ascending"));
  CHECK(has(refusal([](layer_plan& p) { p.neurons[4] = {1, 4}; }), "expected indices below 4, found 4"));
  CHECK(has(refusal([](layer_plan& p) { p.neurons[5] = {1, 2}; }), "neurons of expert 5': expected an expert that keeps its weights"));
  CHECK(has(refusal([](layer_plan& p) { p.neurons[0] = {1, 2}; }), "neurons of expert 0': expected an expert that keeps its weights"));
  CHECK(has(refusal([](layer_plan& p) { p.neurons.erase(4); }), "neurons': expected a list for each expert that keeps its weights, found none for 4"));
  CHECK(has(refusal([](layer_plan& p) { p.neurons[1] = {0, 1}; }), "expected a list for each member of merges[0], found none for 3"));
  layer_config shared = shape();
  shared.shared_intermediate = 8;
  CHECK(has(refusal([](layer_plan&) {}, shared), "layers[3].neurons': expected none"));
}

TEST_CASE("merges") {
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].kept = 1; }), "merges[0].kept': expected ascending experts that stay, found 1"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].kept = 0; }), "merges[0].kept"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].members = {1, 3}; }), "merges[0].members': expected 'kept' (2) among them"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].members = {2, 3, 4}; }), "merges[0].members': expected experts that do not stay by themselves, found 4"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].members = {2, 3, 6}; }), "merges[0].members': expected indices below 6, found 6"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].weights.pop_back(); }), "merges[0].weights': expected one a member, found 2"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].weights[0] = 0.3; }), "merges[0].weights': expected a sum of 1"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].weights[0] = -0.25; }), "merges[0].weights': expected numbers from 0 to 1"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].orders.pop_back(); }), "merges[0].orders': expected one a member, or none, found 2"));
  CHECK(has(refusal([](layer_plan& p) { p.merges[0].orders[0] = {0, 1, 1, 3}; }), "merges[0].orders': expected each of 4 neurons once"));
  CHECK(has(refusal([](layer_plan& p) {
          p.neurons.clear();
          p.merges.push_back({4, {3, 4}, {0.5, 0.5}, {}});
        }),
        "merges': expected every expert in one merge at most, found 3 in two"));
}

TEST_CASE("what belonged to experts that go, goes with them") {
  layer_plan p = good();
  keep_experts(p, {2, 4});
  CHECK(p.novices.empty());
  CHECK(p.merges.size() == 1);
  CHECK(p.neurons.size() == 2);
  p.neurons[1] = p.neurons[3] = {0, 1};
  keep_experts(p, {2});
  CHECK(p.neurons.size() == 3);
  keep_experts(p, {});
  CHECK(p == layer_plan{});
}

}  // namespace pipeline_layer_plan_test
