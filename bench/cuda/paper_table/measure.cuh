// What one row measures: a prefill of 2048 tokens, steps of decoding for several numbers of texts, memory.
#pragma once

#include "eager_model.cuh"
#include "row_file.hpp"
#include "rows.hpp"

#include <slimtrim/cuda/bandwidth.cuh>
#include <slimtrim/cuda/model/generate.cuh>

#include <chrono>
#include <cmath>
#include <utility>

namespace paper_table {

/// What every row is measured with.
struct protocol {
  static constexpr index_t prefill = 2048;  ///< tokens of the one prompt whose prefill is timed
  static constexpr index_t context = 512;   ///< tokens in front of the decoded ones
  static constexpr index_t steps = 64;      ///< tokens decoded in a timed run
  static constexpr int runs = 3;            ///< after one that is not counted; the median is kept
  static constexpr double spare = 6e9;      ///< bytes of device memory kept for caches, scratch and libraries
};

[[nodiscard]] inline std::vector<std::uint32_t> random_prompt(index_t count, index_t vocabulary, std::uint64_t stream) {
  std::vector<std::uint32_t> tokens;
  for (index_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::uint32_t>(random_bits_at(1, stream, static_cast<std::uint64_t>(i)) %
                                                static_cast<std::uint64_t>(vocabulary)));
  return tokens;
}

/// Median seconds of `run()`, by the host's clock, the device idle before and after; once before without counting.
template <class F>
[[nodiscard]] double median_seconds(cuda_bench::session& s, F const& run) {
  std::vector<double> times;
  for (int i = 0; i <= protocol::runs; ++i) {
    s.backend.synchronise();
    auto const begin = std::chrono::steady_clock::now();
    run();
    s.backend.synchronise();
    if (i > 0) times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return cuda_bench::median(times);
}

inline void measure_fused(cuda_bench::session& s, table_row const& row, row_file& out) {
  bool const packed = row.kind == row_kind::fused_4bit;
  model_config const config = shape_of(row);
  double const ends = 4.0 * static_cast<double>(config.vocabulary * config.hidden);
  index_t const before = cuda::free_device_bytes();
  index_t const slab = slab_of(config, packed, static_cast<double>(before) - ends - protocol::spare);
  cuda::device_model<element> m;
  m.config = config;
  m.shape = cuda::layer_shape(s.on(), config);
  random_maker make(s, packed);
  m.ends.embedding = make.halves(config.vocabulary * m.shape.padded_hidden, 1.0F);
  m.ends.final_norm = make.ones(config.hidden);
  m.ends.head = make.tiles(m.logit_columns(), m.shape.padded_hidden, false);
  double weights = ends;
  m.layers.reserve(static_cast<std::size_t>(config.layer_count()));
  for (index_t i = 0; i < config.layer_count(); ++i) {
    m.layers.push_back(i < slab
                           ? make.layer(m.shape, config, i)
                           : borrowed(make, m.layers[static_cast<std::size_t>(stand_in(config, slab, i))], config));
    m.extents.include(m.layers.back());
    weights += layer_bytes(config, i, packed);
  }
  s.backend.synchronise();
  out.set("layers", static_cast<double>(config.layer_count()));
  out.set("layers_in_memory", static_cast<double>(slab));
  out.set("weight_bytes", weights);
  {
    cuda::device_generation<element> text(s.on(), m, 1, protocol::prefill);
    auto const prompt = random_prompt(protocol::prefill, config.vocabulary, 1);
    out.set("prefill_seconds", median_seconds(s, [&] { text.prefill(0, prompt); }));
  }
  // Decoding twice: kernels one after another, which the table's columns show, and kernels that may begin early.
  for (auto const& [texts, early] : {std::pair<index_t, bool>{1, false}, {8, false}, {32, false}, {1, true}, {8, true}}) {
    cuda::device_generation<element> text(s.on(), m, texts, protocol::context + protocol::steps, {}, protocol::context);
    text.overlap_launches(early);
    auto const run = [&](index_t steps) {
      for (index_t i = 0; i < steps; ++i) {
        text.draw();
        text.step();
      }
    };
    std::vector<double> times;
    for (int i = 0; i <= protocol::runs; ++i) {
      for (index_t t = 0; t < texts; ++t)
        text.prefill(t, random_prompt(protocol::context, config.vocabulary, static_cast<std::uint64_t>(10 + t)));
      s.backend.synchronise();
      auto const begin = std::chrono::steady_clock::now();
      run(protocol::steps);
      s.backend.synchronise();
      if (i > 0) times.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::string const at = std::to_string(texts);
    if (early) {
      out.set("early_decode_seconds_" + at, cuda_bench::median(times) / static_cast<double>(protocol::steps));
      continue;
    }
    out.set("decode_seconds_" + at, cuda_bench::median(times) / static_cast<double>(protocol::steps));
    out.set("experts_met_" + at, static_cast<double>(text.experts_met()));
    // With a slab memory is what the whole model would take: what is in use, and the weights that are not.
    double const used = static_cast<double>(before - cuda::free_device_bytes());
    double held = ends;
    for (index_t i = 0; i < slab; ++i) held += layer_bytes(config, i, packed);
    out.set("memory_bytes_" + at, used + weights - held);
  }
}

inline void measure_eager(cuda_bench::session& s, table_row const& row, row_file& out) {
  model_config const config = shape_of(row);
  double const ends = 4.0 * static_cast<double>(config.vocabulary * config.hidden);
  index_t const before = cuda::free_device_bytes();
  index_t const slab = slab_of(config, false, static_cast<double>(before) - ends - protocol::spare);
  eager_model m(s, config, slab);
  out.set("layers", static_cast<double>(config.layer_count()));
  out.set("layers_in_memory", static_cast<double>(slab));
  out.set("weight_bytes", m.bytes());
  cuda::device_buffer<std::int32_t> tokens(protocol::prefill), lengths(32);
  auto const upload = [&](std::vector<std::uint32_t> const& prompt) {
    cuda::copy_to_device(s.stream, reinterpret_cast<std::int32_t const*>(prompt.data()),
                         static_cast<index_t>(prompt.size()), tokens.data());
    s.backend.synchronise();
  };
  auto const set_lengths = [&](index_t texts, index_t length) {
    std::vector<std::int32_t> const all(static_cast<std::size_t>(texts), static_cast<std::int32_t>(length));
    cuda::copy_to_device(s.stream, all.data(), texts, lengths.data());
    s.backend.synchronise();
  };
  m.make_room(1, protocol::prefill, protocol::prefill);
  upload(random_prompt(protocol::prefill, config.vocabulary, 1));
  set_lengths(1, 0);
  out.set("prefill_seconds", median_seconds(s, [&] {
            m.forward(tokens.data(), protocol::prefill, {lengths.data(), protocol::prefill});
          }));
  for (index_t const texts : {1, 8, 32}) {
    // Steps at the middle of the decoded part; the cache's contents do not matter for time, so it is filled once by
    // zeros of the same shape.
    m.make_room(texts, protocol::context + protocol::steps, std::max<index_t>(texts, 1));
    m.clear_cache();
    upload(random_prompt(texts, config.vocabulary, 2));
    set_lengths(texts, protocol::context + protocol::steps / 2);
    index_t const steps = 16;
    double const seconds = median_seconds(s, [&] {
      for (index_t i = 0; i < steps; ++i) m.forward(tokens.data(), texts, {lengths.data(), 1});
    });
    std::string const at = std::to_string(texts);
    out.set("decode_seconds_" + at, seconds / static_cast<double>(steps));
    double held = ends;
    for (index_t i = 0; i < slab; ++i) held += layer_bytes(config, i, false);
    out.set("memory_bytes_" + at, static_cast<double>(before - cuda::free_device_bytes()) + m.bytes() - held);
  }
}

}  // namespace paper_table
