// A layer's weights in device memory, read back element by element: where each stands, zeros around it, what stays
// packed.
#include "cuda/downloaded_tiles.hpp"
#include "cuda/model/support.hpp"

#include <slimtrim/cuda/model/device_layer.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace cuda_device_layer_test {

using namespace slimtrim;
using cuda_tests::random_weights;

namespace {

float element(weight const& w, index_t r, index_t c) {
  return std::visit(
      [&](auto const& view) {
        if constexpr (requires { static_cast<float>(view(r, c)); })
          return static_cast<float>(view(r, c));
        else
          return std::nanf("");
      },
      w.view);
}

// Rounded once.
float half(weight const& w, index_t r, index_t c) { return static_cast<float>(bfloat16(element(w, r, c))); }

// Every element of the tiles: that of the weight whose row expected(r) names, or 0. Codes are exact,
// elements of 16 bits rounded once.
void check_elements(cuda_tests::device_memory& device, cuda::device_tiles const& tiles,
                    std::function<std::pair<weight const*, index_t>(index_t)> const& expected) {
  cuda_tests::downloaded_tiles const here(device.backend().on(), tiles);
  bool const codes = tiles.view.kind == cuda::tile_kind::codes4;
  for (index_t r = 0; r < here.view.rows; ++r) {
    auto const [from, row] = expected(r);
    for (index_t c = 0; c < here.view.columns; ++c) {
      bool const there = from != nullptr && row < from->rows() && c < from->columns();
      float const value = !there ? 0.0F : (codes ? element(*from, row, c) : half(*from, row, c));
      REQUIRE(cuda::element_at(here.view, r, c) == value);
    }
  }
}

void check_experts(cuda_tests::device_memory& device, cuda::layer_shape const& shape,
                   cuda::device_experts<bfloat16> const& found, std::vector<swiglu_weights const*> const& expected,
                   index_t width) {
  index_t const experts = static_cast<index_t>(expected.size());
  CHECK(found.view.experts == experts);
  CHECK(found.view.hidden == shape.padded_hidden);
  CHECK(found.view.width == width);
  auto const views = device.download<cuda::tile_weight_view>(found.views.view());
  REQUIRE(static_cast<index_t>(views.size()) == 2 * experts);
  CHECK(found.view.gate_up == found.views.data());
  CHECK(found.view.down == found.views.data() + experts);
  static weight const nothing{};
  std::size_t own = 0, others = 0;
  for (std::size_t e = 0; e < expected.size(); ++e) {
    swiglu_weights const* const w = expected[e];
    // Constant experts share the zeros that stand behind all others.
    std::size_t const at = w != nullptr ? own++ : found.gate_up.size() - 1;
    others += w == nullptr ? 1U : 0U;
    REQUIRE(views[e].words == found.gate_up[at].view.words);
    REQUIRE(views[expected.size() + e].words == found.down[at].view.words);
    REQUIRE(views[e].kind == found.kind);
    REQUIRE(views[expected.size() + e].kind == found.kind);
    REQUIRE(views[e].rows == 2 * width);
    REQUIRE(views[expected.size() + e].rows == shape.padded_hidden);
    check_elements(device, found.gate_up[at], [&](index_t r) {
      // Eight rows of gate, then the same eight of up.
      index_t const row = r / 16 * 8 + r % 8;
      return std::pair(w == nullptr ? &nothing : (r % 16 < 8 ? &w->gate : &w->up), row);
    });
    check_elements(device, found.down[at], [&](index_t r) { return std::pair(w == nullptr ? &nothing : &w->down, r); });
  }
  CHECK(found.gate_up.size() == own + (others > 0 ? 1U : 0U));
}

struct layer_on_device {
  cuda_tests::device_memory device;
  model_config config;
  cuda::layer_shape shape;
  decoder_layer source;
  cuda::device_layer<bfloat16> layer;
  layer_on_device(model_config const& c, index_t index, random_weights::choice packed, random_weights::choice novice)
      : layer_on_device(c, load_layer(c, random_weights(c, packed, novice), index)) {}
  layer_on_device(model_config const& c, decoder_layer from)
      : config(c),
        shape(device.backend().on(), config),
        source(std::move(from)),
        layer(device.backend().on(), shape, source) {}

  void check_attention(std::size_t stacks) {
    REQUIRE(layer.attends());
    CHECK(layer.query_key_value.size() == stacks);
    std::vector<weight const*> const parts{&source.attention->query, &source.attention->key, &source.attention->value};
    index_t const begins[4] = {0, shape.heads.key_column, shape.heads.value_column, shape.made_columns};
    index_t above = 0;
    for (cuda::device_tiles const& stack : layer.query_key_value) {
      check_elements(device, stack, [&](index_t r) {
        std::size_t part = 0;
        while (begins[part + 1] <= above + r) ++part;
        return std::pair(parts[part], above + r - begins[part]);
      });
      above += stack.view.rows;
    }
    CHECK(above == shape.made_columns);
    CHECK(layer.output.view.rows == shape.padded_hidden);
    CHECK(layer.output.view.columns == shape.context_columns);
    check_elements(device, layer.output, [&](index_t r) { return std::pair(&source.attention->output, r); });
    CHECK(device.download<float>(layer.attention_norm.view()) == source.attention->norm);
  }

  void check_routed(cuda::tile_kind kind, index_t width) {
    REQUIRE(layer.routed.has_value());
    CHECK(layer.routed->kind == kind);
    moe_weights const& moe = *source.moe;
    std::vector<swiglu_weights const*> all;
    for (expert_weights const& e : moe.experts) all.push_back(e.is_novice() ? nullptr : &e.swiglu);
    check_experts(device, shape, *layer.routed, all, width);
    CHECK(layer.routed->view.rule == moe.rule);
    auto const router = device.download<bfloat16>(layer.routed->router.view());
    REQUIRE(static_cast<index_t>(router.size()) == moe.router.rows() * shape.padded_hidden);
    for (index_t e = 0; e < moe.router.rows(); ++e)
      for (index_t j = 0; j < shape.padded_hidden; ++j)
        REQUIRE(static_cast<float>(router[static_cast<std::size_t>(e * shape.padded_hidden + j)]) ==
                (j < config.hidden ? half(moe.router, e, j) : 0.0F));
  }
};

bool nothing_packed(module_id) { return false; }
bool all_packed(module_id id) { return id.role != module_role::router && id.role != module_role::output; }
bool one_expert_not(module_id id) {
  return id.role != module_role::query && !(id.role == module_role::up && id.expert == 2);
}
bool first_and_last_novice(module_id id) { return id.expert == 0 || id.expert == 3; }

}  // namespace

TEST_CASE("device_layer: extents are padded to whole tiles, and shapes that no kernel takes are refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  model_config config = cuda_tests::small_config(mixtral_family, 72, 1);
  config.heads = 6;
  config.head_dim = 24;  // 144 columns of queries, 48 of keys
  cuda::layer_shape const shape(on, config);
  CHECK(shape.hidden == 72);
  CHECK(shape.padded_hidden == 128);
  CHECK(shape.context_columns == 192);
  CHECK(shape.heads.key_column == 192);
  CHECK(shape.heads.value_column == 256);
  CHECK(shape.made_columns == 320);
  auto const frequencies = device.download<float>(shape.frequencies.view());
  REQUIRE(frequencies.size() == 12);
  for (std::size_t i = 0; i < 12; ++i)  // to the last bits of a float
    CHECK(static_cast<double>(frequencies[i]) ==
          doctest::Approx(std::exp(-std::log(10000.0) * static_cast<double>(i) / 12)).epsilon(1e-6));
  for (index_t dim : {12, 136}) {
    config.head_dim = dim;
    CHECK_THROWS_WITH_AS(cuda::layer_shape(on, config),
                         "cuda::layer_shape: head_dim: expected a multiple of 8 up to 128", error);
  }
  config.head_dim = 16;
  for (index_t shared : {0, 4}) {
    config.key_value_heads = shared;
    CHECK_THROWS_WITH_AS(cuda::layer_shape(on, config),
                         "cuda::layer_shape: heads: expected a multiple of key_value_heads", error);
  }
}

TEST_CASE("device_layer: 16-bit weights, no extent a multiple of a tile, two constant experts") {
  model_config config = cuda_tests::small_config(mixtral_family, 72, 1);
  config.layers[0].intermediate = 40;
  layer_on_device made(config, 0, nothing_packed, first_and_last_novice);
  made.check_attention(1);
  made.check_routed(cuda::tile_kind::bfloat16, 64);
  CHECK(made.device.download<float>(made.layer.feed_forward_norm.view()) == made.source.feed_forward_norm);
  auto const novices = made.device.download<float>(made.layer.routed->novices.view());
  REQUIRE(novices.size() == 4 * 128);
  for (std::size_t e = 0; e < 4; ++e)
    for (std::size_t j = 0; j < 128; ++j) {
      auto const& novice = made.source.moe->experts[e].novice;
      REQUIRE(novices[e * 128 + j] == (j < novice.size() ? novice[j] : 0.0F));
    }
}

TEST_CASE("device_layer: codes stay packed where all experts can") {
  model_config const config = cuda_tests::small_config(mixtral_family, 128, 1);
  layer_on_device packed(config, 0, all_packed, first_and_last_novice);
  packed.check_attention(1);
  CHECK(packed.layer.query_key_value.front().view.kind == cuda::tile_kind::codes4);
  packed.check_routed(cuda::tile_kind::codes4, 64);
  layer_on_device mixed(config, 0, one_expert_not, nullptr);
  mixed.check_attention(3);  // a query of another kind: one product each
  mixed.check_routed(cuda::tile_kind::bfloat16, 64);
  CHECK(mixed.layer.routed->novices.size() == 0);
  CHECK(packed.layer.routed->bytes() < mixed.layer.routed->bytes());
}

TEST_CASE("device_layer: experts of different widths take the widest") {
  model_config const config = cuda_tests::small_config(mixtral_family, 64, 1);
  decoder_layer source = load_layer(config, random_weights(config, nothing_packed, nullptr), 0);
  auto const floats = [](index_t rows, index_t columns, std::uint64_t seed) {
    tensor<float, 2> values(rows, columns);
    for (index_t i = 0; i < rows * columns; ++i)
      values.view().data[i] = static_cast<float>(normal_at(seed, 0, static_cast<std::uint64_t>(i)));
    return own_weight(std::move(values));
  };
  source.moe->experts[1].swiglu = {floats(130, 64, 1), floats(130, 64, 2), floats(64, 130, 3)};
  source.moe->experts[2].swiglu = {floats(1, 64, 4), floats(1, 64, 5), floats(64, 1, 6)};
  layer_on_device made(config, std::move(source));
  made.check_routed(cuda::tile_kind::bfloat16, 192);
}

TEST_CASE("device_layer: a dense layer, a shared expert, a selection bias, dropped parts") {
  model_config const config = cuda_tests::small_deepseek(64);
  layer_on_device dense(config, 0, nothing_packed, nullptr);
  CHECK_FALSE(dense.layer.routed.has_value());
  CHECK(dense.layer.feeds());
  check_experts(dense.device, dense.shape, *dense.layer.every_token, {&*dense.source.dense}, 192);
  CHECK(dense.layer.every_token->view.rule.top_k == 1);
  decoder_layer source = load_layer(config, random_weights(config, nothing_packed, nullptr), 1);
  source.moe->selection_bias = {1, 2, 3, 4, 5, 6};
  layer_on_device both(config, source);
  both.check_routed(cuda::tile_kind::bfloat16, 64);
  check_experts(both.device, both.shape, *both.layer.every_token, {&*both.source.moe->shared}, 64);
  CHECK(both.device.download<float>(both.layer.routed->bias.view()) == source.moe->selection_bias);
  CHECK(both.layer.routed->view.selection_bias.data == both.layer.routed->bias.data());
  source.attention.reset();
  layer_on_device half(config, source);
  CHECK_FALSE(half.layer.attends());
  CHECK(half.layer.bytes() < both.layer.bytes());
  layer_on_device none(config, decoder_layer{});
  CHECK_FALSE(none.layer.attends());
  CHECK_FALSE(none.layer.feeds());
  CHECK(none.layer.bytes() == 0);
}

TEST_CASE("device_layer: bytes count every weight, scale, zero point and norm once") {
  model_config const config = cuda_tests::small_config(mixtral_family, 64, 1);
  layer_on_device made(config, 0, nothing_packed, nullptr);
  // In 16 bits, all extents multiples of 64: 2 bytes an element; norms in floats.
  index_t const attention = 64 * 64 + 2 * 64 * 64 + 64 * 64, experts = 4 * 3 * 64 * 64, router = 4 * 64;
  CHECK(made.layer.bytes() == 2 * (attention + experts + router) + 2 * 4 * 64);
}

}  // namespace cuda_device_layer_test
