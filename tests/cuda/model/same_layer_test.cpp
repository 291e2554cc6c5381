// What counts as the layer that the device holds already: every part of it in the same place, and nothing else.
#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/same_layer.hpp>
#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace cuda_same_layer_test {

using namespace slimtrim;
using cuda::detail::same_layer;
using cuda::detail::same_shape;
using cuda::detail::same_weight;

namespace {

weight floats(index_t rows, index_t columns) { return own_weight(tensor<float, 2>(rows, columns)); }

// Attention, a dense part and experts at once, which no model has, so that one layer has everything to be changed.
decoder_layer whole_layer() {
  auto const swiglu = [] { return swiglu_weights{floats(6, 4), floats(6, 4), floats(4, 6)}; };
  decoder_layer layer;
  layer.attention = attention_weights{{1, 2, 3, 4}, floats(4, 4), floats(2, 4), floats(2, 4), floats(4, 4)};
  layer.feed_forward_norm = {4, 3, 2, 1};
  layer.dense = swiglu();
  moe_weights moe;
  moe.router = floats(3, 4);
  moe.selection_bias = {0, 1, 2};
  moe.rule.selection_bias = true;
  moe.experts = {{swiglu(), {}}, {{}, {1, 2, 3, 4}}, {swiglu(), {}}};
  moe.shared = swiglu();
  layer.moe = std::move(moe);
  return layer;
}

}  // namespace

TEST_CASE("same_layer: a copy is the same, a layer with one part in another place is not") {
  using change = std::function<void(decoder_layer&)>;
  std::vector<change> const changes{
      [](decoder_layer& l) { l.attention.reset(); },
      [](decoder_layer& l) { l.attention->norm[2] = 0; },
      [](decoder_layer& l) { l.attention->query = floats(4, 4); },
      [](decoder_layer& l) { l.attention->key = floats(2, 4); },
      [](decoder_layer& l) { l.attention->value = floats(2, 4); },
      [](decoder_layer& l) { l.attention->output = floats(4, 4); },
      [](decoder_layer& l) { l.feed_forward_norm.back() = 2; },
      [](decoder_layer& l) { l.dense.reset(); },
      [](decoder_layer& l) { l.dense->gate = floats(6, 4); },
      [](decoder_layer& l) { l.dense->up = floats(6, 4); },
      [](decoder_layer& l) { l.dense->down = floats(4, 6); },
      [](decoder_layer& l) { l.moe.reset(); },
      [](decoder_layer& l) { l.moe->router = floats(3, 4); },
      [](decoder_layer& l) { l.moe->selection_bias[0] = -1; },
      [](decoder_layer& l) { l.moe->experts.pop_back(); },
      [](decoder_layer& l) { l.moe->experts.push_back(l.moe->experts.back()); },
      [](decoder_layer& l) { std::swap(l.moe->experts[0], l.moe->experts[2]); },
      [](decoder_layer& l) { l.moe->experts[1].novice[3] = 0; },
      [](decoder_layer& l) {
        l.moe->experts[0].novice = {1, 2, 3, 4};
      },
      [](decoder_layer& l) { l.moe->experts[2].swiglu.up = floats(6, 4); },
      [](decoder_layer& l) { l.moe->shared.reset(); },
      [](decoder_layer& l) { l.moe->shared->down = floats(4, 6); },
      [](decoder_layer& l) { l.moe->rule.top_k = 1; },
      [](decoder_layer& l) { l.moe->rule.renormalise = false; },
      [](decoder_layer& l) { l.moe->rule.scale = 2; },
      [](decoder_layer& l) { l.moe->rule.score = score_function::sigmoid; },
      [](decoder_layer& l) { l.moe->rule.weight_sum_floor = 1; },
  };
  decoder_layer const held = whole_layer();
  CHECK(same_layer(held, decoder_layer(held)));
  CHECK(same_layer({}, {}));
  CHECK_FALSE(same_layer(held, whole_layer()));  // the same values elsewhere
  for (std::size_t i = 0; i < changes.size(); ++i) {
    CAPTURE(i);
    decoder_layer other = held;
    changes[i](other);
    CHECK_FALSE(same_layer(held, other));
    CHECK_FALSE(same_layer(other, held));
  }
}

TEST_CASE("same_layer: a weight that keeps nothing alive is never the same") {
  tensor<float, 2> const values(2, 3);
  weight borrowed;
  borrowed.view = values.view();
  CHECK_FALSE(same_weight(borrowed, borrowed));
  CHECK_FALSE(same_weight({}, {}));
}

TEST_CASE("same_layer: views into one storage, told apart by place, extents, steps and kind") {
  auto const held = std::make_shared<tensor<float, 2>>(8, 8);
  auto const of = [&](matrix_view<float const> view) { return weight{view, held}; };
  auto const all = as_const(held->view());
  CHECK(same_weight(of(all), of(all)));
  CHECK_FALSE(same_weight(of(rows(all, 0, 4)), of(rows(all, 4, 4))));
  CHECK_FALSE(same_weight(of(rows(all, 0, 4)), of(all)));
  CHECK_FALSE(same_weight(of(columns(all, 0, 4)), of(all)));
  CHECK_FALSE(same_weight(of(transposed(all)), of(all)));
  std::vector<std::uint64_t> const bits(8, 0x5a), other_bits(8, 0xa5);
  auto const masked = [&](std::vector<std::uint64_t> const& words) {
    return weight{masked_view<float>{all, {8, 8, words.data(), 1}}, held};
  };
  CHECK(same_weight(masked(bits), masked(bits)));
  CHECK_FALSE(same_weight(masked(bits), masked(other_bits)));
  CHECK_FALSE(same_weight(masked(bits), of(all)));
}

TEST_CASE("same_layer: codes with other scales, zero points or groups are another weight") {
  auto const held = std::make_shared<cuda_tests::code_matrix>(4, 64, 32, true, 1);
  cuda_tests::code_matrix const other(4, 64, 32, true, 2);
  auto const of = [&](quantized_view<> const& view) { return weight{view, held}; };
  CHECK(same_weight(of(held->view), of(held->view)));
  auto words = held->view, scales = words, zeros = words, groups = words, order = words;
  words.words = other.view.words;
  scales.scales = other.view.scales;
  zeros.zeros = {};
  groups.block_columns = 16;
  std::vector<std::int32_t> const by_column(64, 1);
  order.column_group = by_column.data();
  for (auto const& changed : {words, scales, zeros, groups, order})
    CHECK_FALSE(same_weight(of(held->view), of(changed)));
}

TEST_CASE("same_layer: shapes") {
  model_config const config = cuda_tests::small_config(mixtral_family, 64, 2);
  CHECK(same_shape(config, model_config(config)));
  auto const changed = [&](auto const& change) {
    model_config other = config;
    change(other);
    return same_shape(config, other);
  };
  CHECK_FALSE(changed([](model_config& c) { c.hidden = 128; }));
  CHECK_FALSE(changed([](model_config& c) { c.heads = 8; }));
  CHECK_FALSE(changed([](model_config& c) { c.key_value_heads = 4; }));
  CHECK_FALSE(changed([](model_config& c) { c.head_dim = 8; }));
  CHECK_FALSE(changed([](model_config& c) { c.rms_epsilon = 1e-6; }));
  CHECK_FALSE(changed([](model_config& c) { c.rope_theta = 1e6; }));
  CHECK_FALSE(changed([](model_config& c) { c.rope_factor = 2; }));
  CHECK(changed([](model_config& c) { c.layers.pop_back(); }));  // layers do not matter
}

}  // namespace cuda_same_layer_test
