// Models with random weights, made in device memory. Where memory is short, a slab of layers is made and passed several
// times: a layer is many times the size of the caches, so its weights come from memory each time all the same.
#pragma once

#include "../support.cuh"

#include <slimtrim/cuda/model/model.cuh>

#include <cstdint>

namespace paper_table {

using namespace slimtrim;
using element = bfloat16;

class random_maker {
 public:
  random_maker(cuda_bench::session& s, bool packed) : s_(s), packed_(packed) {}

  [[nodiscard]] cuda::device_tiles tiles(index_t rows, index_t columns, bool packed) {
    std::optional<cuda::detail::code_shape> shape;
    if (packed) shape = cuda::detail::code_shape{cuda::tile_scale::bfloat16, 1};  // groups of 128
    cuda::device_tiles made = cuda::detail::make_tiles(cuda::detail::plan_padded<element>(rows, columns, shape), false);
    if (packed) {
      cuda::launch(s_.stream, {dim3(1024), 256, 0}, cuda_bench::fill_bits,
                   reinterpret_cast<std::uint32_t*>(made.words.data()), 4 * made.words.size(), ++seed_);
      cuda::launch(s_.stream, {dim3(1024), 256, 0}, cuda_bench::fill_halves,
                   reinterpret_cast<element*>(made.scales.data()), made.scales.size(), 0.003F, true, ++seed_);
    } else {
      cuda::launch(s_.stream, {dim3(1024), 256, 0}, cuda_bench::fill_halves,
                   reinterpret_cast<element*>(made.words.data()), 8 * made.words.size(), 0.03F, false, ++seed_);
    }
    return made;
  }
  [[nodiscard]] cuda::device_buffer<element> halves(index_t count, float size = 0.03F) {
    return cuda_bench::random_halves(s_, count, size, ++seed_);
  }
  [[nodiscard]] cuda::device_buffer<float> ones(index_t count) {
    return cuda::upload_floats(s_.on(), std::vector<float>(static_cast<std::size_t>(count), 1.0F));
  }

  [[nodiscard]] cuda::device_experts<element> experts(index_t count, index_t width, index_t hidden) {
    cuda::device_experts<element> made;
    made.kind = packed_ ? cuda::tile_kind::codes4 : cuda::tile_kind::bfloat16;
    std::vector<cuda::tile_weight_view> views(static_cast<std::size_t>(2 * count));
    for (index_t e = 0; e < count; ++e) {
      made.gate_up.push_back(tiles(2 * width, hidden, packed_));
      made.down.push_back(tiles(hidden, width, packed_));
      views[static_cast<std::size_t>(e)] = made.gate_up.back().view;
      views[static_cast<std::size_t>(count + e)] = made.down.back().view;
    }
    made.views = cuda::device_buffer<cuda::tile_weight_view>(2 * count);
    cuda::copy_to_device(s_.stream, views.data(), 2 * count, made.views.data());
    s_.backend.synchronise();
    made.view.experts = count;
    made.view.hidden = hidden;
    made.view.width = width;
    made.view.gate_up = made.views.data();
    made.view.down = made.views.data() + count;
    made.view.rule.top_k = 1;
    return made;
  }

  [[nodiscard]] cuda::device_layer<element> layer(cuda::layer_shape const& shape, model_config const& config,
                                                  index_t i) {
    layer_config const& wanted = config.layer(i);
    cuda::device_layer<element> made;
    index_t const hidden = shape.padded_hidden;
    if (wanted.attention) {
      made.query_key_value.push_back(tiles(shape.made_columns, hidden, packed_));
      made.output = tiles(hidden, shape.context_columns, packed_);
      made.attention_norm = ones(config.hidden);
    }
    if (wanted.feed_forward == feed_forward_kind::none) return made;
    made.feed_forward_norm = ones(config.hidden);
    if (wanted.feed_forward == feed_forward_kind::dense) {
      made.every_token = experts(1, wanted.intermediate, hidden);
      return made;
    }
    if (wanted.shared_intermediate > 0) made.every_token = experts(1, wanted.shared_intermediate, hidden);
    made.routed = experts(wanted.experts, wanted.intermediate, hidden);
    made.routed->view.rule = config.layer_rule(i);
    made.routed->router = halves(wanted.experts * hidden);
    made.routed->view.router = as_const(made.routed->router.matrix(wanted.experts, hidden));
    return made;
  }

 private:
  cuda_bench::session& s_;
  bool packed_;
  std::uint32_t seed_ = 0;
};

/// A layer that computes with the memory of another, which outlives it.
[[nodiscard]] inline cuda::device_layer<element> borrowed(random_maker& make, cuda::device_layer<element> const& from,
                                                          model_config const& config) {
  cuda::device_layer<element> made;
  auto const tiles = [](cuda::device_tiles const& of) {
    cuda::device_tiles view;
    view.view = of.view;
    return view;
  };
  for (cuda::device_tiles const& each : from.query_key_value) made.query_key_value.push_back(tiles(each));
  made.output = tiles(from.output);
  if (from.attends()) made.attention_norm = make.ones(config.hidden);
  if (from.feeds()) made.feed_forward_norm = make.ones(config.hidden);
  auto const experts = [&](auto const& of) {
    cuda::device_experts<element> view;
    view.view = of->view;
    view.kind = of->kind;
    return view;
  };
  if (from.every_token) made.every_token = experts(from.every_token);
  if (from.routed) made.routed = experts(from.routed);
  return made;
}

/// Bytes of a layer's matrices, in 4 bits with a 16-bit scale for 128 weights, or in 16 bits. Routers and norms stay
/// 16-bit and float.
[[nodiscard]] inline double layer_bytes(model_config const& config, index_t i, bool packed) {
  layer_config const& layer = config.layer(i);
  double const each = packed ? 0.5 + 2.0 / 128 : 2.0, h = static_cast<double>(config.hidden);
  double const q = static_cast<double>(config.heads * config.head_dim),
               k = static_cast<double>(config.key_value_heads * config.head_dim);
  double bytes = layer.attention ? each * h * (2 * q + 2 * k) : 0.0;
  double const widths = static_cast<double>(layer.feed_forward == feed_forward_kind::moe
                                                ? layer.experts * layer.intermediate + layer.shared_intermediate
                                            : layer.feed_forward == feed_forward_kind::dense ? layer.intermediate
                                                                                             : 0);
  return bytes + each * 3 * h * widths + 2 * h * static_cast<double>(layer.experts);
}

/// Which of `layers` are made so that they take at most `room` bytes: all, or the first n of them, n a multiple of 4.
[[nodiscard]] inline index_t slab_of(model_config const& config, bool packed, double room) {
  double all = 0;
  index_t fits = config.layer_count();
  for (index_t i = 0; i < config.layer_count(); ++i) {
    all += layer_bytes(config, i, packed);
    if (all > room && fits == config.layer_count()) fits = i;
  }
  if (all <= room) return config.layer_count();
  expects(fits >= 4, "paper_table", "device memory: expected room for at least four layers");
  return fits / 4 * 4;
}

/// The layer of the slab that stands for layer i: of the same kind, `step` layers apart where it can be.
[[nodiscard]] inline index_t stand_in(model_config const& config, index_t slab, index_t i) {
  auto const same = [&](index_t j) {
    return config.layer(i).feed_forward == config.layer(j).feed_forward &&
           config.layer(i).attention == config.layer(j).attention;
  };
  for (index_t k = 0; k < slab; ++k)
    if (same((i + k) % slab)) return (i + k) % slab;
  throw error("paper_table: layer " + std::to_string(i) + ": no layer of its kind in the slab");
}

}  // namespace paper_table
