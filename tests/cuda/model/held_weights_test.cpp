// Weights that stay on the device: the same again is not uploaded again, another is, and what was used longest ago goes.
#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/held_weights.cuh>
#include <doctest/doctest.h>

namespace cuda_held_weights_test {

using namespace slimtrim;
using namespace cuda_tests;

namespace {

bool nothing(module_id) { return false; }

}  // namespace

TEST_CASE("held_weights: halves by what they hold, the last ones used stay") {
  model_config const config = small_config(mixtral_family, 64, 2);
  random_weights const source(config, nothing, nullptr);
  device_memory device;
  cuda::held_weights<bfloat16> held(device.backend().on(), 0);  // two at least
  decoder_layer const layer = load_layer(config, source, 0);
  auto* const first = held.attention(config, layer);
  auto* const second = held.feed_forward(config, layer);
  REQUIRE(first != nullptr);
  REQUIRE(second != nullptr);
  CHECK(first->layer.attends());
  CHECK_FALSE(first->layer.feeds());
  CHECK(second->layer.feeds());
  CHECK_FALSE(second->layer.attends());
  // The same storage: the same memory.
  auto const* const words = first->layer.output.words.data();
  CHECK(held.attention(config, layer) == first);
  CHECK(held.attention(config, decoder_layer(layer)) == first);
  CHECK(held.feed_forward(config, layer) == second);
  CHECK(first->layer.output.words.data() == words);
  // Equal numbers in another place are another half; the one that was used longest ago makes room.
  decoder_layer const again = load_layer(config, source, 0);
  CHECK(held.attention(config, again)->source.attention->query.storage == again.attention->query.storage);
  CHECK(held.feed_forward(config, layer) == second);
  CHECK(held.attention(config, layer)->source.attention->query.storage == layer.attention->query.storage);
  // What was dropped.
  decoder_layer const none;
  CHECK(held.attention(config, none) == nullptr);
  CHECK(held.feed_forward(config, none) == nullptr);
}

TEST_CASE("held_weights: shapes of configurations, and heads of two models") {
  model_config const config = small_config(mixtral_family, 64, 1), wider = small_config(mixtral_family, 128, 1);
  device_memory device;
  cuda::held_weights<bfloat16> held(device.backend().on(), 4);
  auto const& shape = held.shape_of(config);
  auto const& other = held.shape_of(wider);
  CHECK(&held.shape_of(config) == &shape);
  CHECK(shape.hidden == 64);
  CHECK(other.hidden == 128);
  random_weights const source(config, nothing, nullptr);
  model_ends const one = load_ends(config, source), two = load_ends(config, source);
  cuda::held_head const* const first = &held.head(config, one);
  CHECK(first->shape == &shape);
  CHECK(&held.head(config, two) != first);
  CHECK(&held.head(config, one) == first);
  // The same head behind another norm is another.
  model_ends normed = one;
  normed.final_norm[3] += 1;
  CHECK(held.head(config, normed).source_norm == normed.final_norm);
}

}  // namespace cuda_held_weights_test
