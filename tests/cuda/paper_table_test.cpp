// The shapes and bytes of the paper's table, its files, and the models that it times, made small.
#include "../../bench/cuda/paper_table/eager_model.cuh"
#include "../../bench/cuda/paper_table/table.hpp"
#include "cuda/support.hpp"

#include <slimtrim/cuda/model/generate.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

namespace cuda_paper_table_test {

using namespace slimtrim;
using namespace paper_table;

namespace {

table_row row_named(std::string const& name) {
  for (table_row const& row : all_rows())
    if (row.name == name) return row;
  FAIL("no row " << name);
  return {};
}
double gibibytes(std::string const& name) {
  table_row const row = row_named(name);
  model_config const config = shape_of(row);
  double bytes = 4.0 * static_cast<double>(config.vocabulary * config.hidden);
  for (index_t i = 0; i < config.layer_count(); ++i) bytes += layer_bytes(config, i, row.kind == row_kind::fused_4bit);
  return bytes / (1024.0 * 1024 * 1024);
}

model_config small(bool deepseek) {
  model_config config = shape_of(row_named(deepseek ? "deepseek-base" : "mixtral-base"));
  config.hidden = 128;
  config.heads = 4;
  config.key_value_heads = deepseek ? 4 : 2;
  config.head_dim = 32;
  config.vocabulary = 96;
  config.top_k = deepseek ? 3 : 2;
  config.layers.resize(3);
  for (layer_config& layer : config.layers) {
    layer.intermediate = 64;
    if (layer.experts > 0) {
      layer.experts = 6;
      layer.top_k = config.top_k;
    }
    if (layer.shared_intermediate > 0) layer.shared_intermediate = 128;
  }
  return config;
}

}  // namespace

TEST_CASE("paper_table: the rows weigh what the paper's models weigh") {
  // Recomputed from the shapes by hand; the paper reports 0.6 to 0.7 GiB more, for what is not weights.
  CHECK(gibibytes("mixtral-base") == doctest::Approx(86.99).epsilon(0.001));
  CHECK(gibibytes("mixtral-e2") == doctest::Approx(65.99).epsilon(0.001));
  CHECK(gibibytes("mixtral-l8") == doctest::Approx(65.99).epsilon(0.001));
  CHECK(gibibytes("mixtral-b5") == doctest::Approx(73.47).epsilon(0.001));
  CHECK(gibibytes("mixtral-4bit") == doctest::Approx(22.79).epsilon(0.001));
  CHECK(gibibytes("mixtral-l8-4bit") == doctest::Approx(17.38).epsilon(0.001));
  CHECK(gibibytes("mixtral-b5-4bit") == doctest::Approx(19.31).epsilon(0.001));
  for (table_row const& row : all_rows()) {
    if (row.kind != row_kind::fused_bf16) continue;
    CAPTURE(row.name);
    CHECK(std::abs(gibibytes(row.name) - row.paper_memory) < 0.9);
  }
}

TEST_CASE("paper_table: what is dropped is dropped, and a slab has a stand-in for every layer") {
  for (table_row const& row : all_rows()) {
    model_config const config = shape_of(row);
    CAPTURE(row.name);
    index_t const layers = row.deepseek ? 28 : 32;
    CHECK(config.layer_count() == layers - row.blocks_dropped);
    index_t without = 0;
    for (layer_config const& layer : config.layers) without += layer.feed_forward == feed_forward_kind::none ? 1 : 0;
    CHECK(without == row.layers_dropped);
    index_t const slab = 8;
    for (index_t i = 0; i < config.layer_count(); ++i) {
      index_t const j = stand_in(config, slab, i);
      CHECK(j < slab);
      CHECK(config.layer(j).feed_forward == config.layer(i).feed_forward);
      if (i < slab) CHECK(j == i);
    }
    CHECK(slab_of(config, false, 1e15) == config.layer_count());
    CHECK(slab_of(config, false, 30e9) % 4 ==
          0 + (slab_of(config, false, 30e9) == config.layer_count() ? config.layer_count() % 4 : 0));
    CHECK_THROWS_AS(static_cast<void>(slab_of(config, false, 1e6)), error);
  }
}

TEST_CASE("paper_table: the models that are timed compute") {
  for (bool const deepseek : {false, true}) {
    cuda_bench::session s(nullptr);
    model_config const config = small(deepseek);
    for (bool const packed : {false, true}) {
      cuda::device_model<element> m;
      m.config = config;
      m.shape = cuda::layer_shape(s.on(), config);
      random_maker make(s, packed);
      m.ends.embedding = make.halves(config.vocabulary * m.shape.padded_hidden, 1.0F);
      m.ends.final_norm = make.ones(config.hidden);
      m.ends.head = make.tiles(m.logit_columns(), m.shape.padded_hidden, false);
      m.layers.reserve(3);
      for (index_t i = 0; i < 2; ++i) m.layers.push_back(make.layer(m.shape, config, i));
      m.layers.push_back(borrowed(make, m.layers[1], config));
      for (auto const& layer : m.layers) m.extents.include(layer);
      cuda::device_generation<element> text(s.on(), m, 2, 8);
      text.prefill(0, std::vector<std::uint32_t>{1, 2, 3});
      text.prefill(1, std::vector<std::uint32_t>{95});
      for (int i = 0; i < 3; ++i) {
        text.draw();
        text.step();
      }
      s.backend.synchronise();
      tensor<float, 2> const logits = text.logits();
      double squares = 0;
      for (index_t i = 0; i < logits.view().size(); ++i)
        squares += static_cast<double>(logits.view().data[i] * logits.view().data[i]);
      CHECK(std::isfinite(squares));
      CHECK(squares > 0);
      CHECK(text.experts_met() >= config.top_k);
      CHECK(text.experts_met() <= 2 * config.top_k);
    }
    eager_model m(s, config, 2);
    std::vector<std::int32_t> tokens{5, 6, 7, 8};
    std::int32_t zero = 0;
    cuda::device_buffer<std::int32_t> ids(4), lengths(1);
    cuda::copy_to_device(s.stream, tokens.data(), 4, ids.data());
    cuda::copy_to_device(s.stream, &zero, 1, lengths.data());
    m.make_room(1, 8, 4);
    m.forward(ids.data(), 4, {lengths.data(), 4});
    std::int32_t next = -1;
    cuda::copy_to_host(s.stream, ids.data(), 1, &next);
    s.backend.synchronise();
    CHECK(next >= 0);
    CHECK(next < config.vocabulary);
    // The same prompt token by token ends with the same token.
    m.make_room(1, 8, 1);
    for (std::int32_t position = 0; position < 4; ++position) {
      cuda::copy_to_device(s.stream, tokens.data() + position, 1, ids.data());
      cuda::copy_to_device(s.stream, &position, 1, lengths.data());
      m.forward(ids.data(), 1, {lengths.data(), 1});
    }
    std::int32_t again = -1;
    cuda::copy_to_host(s.stream, ids.data(), 1, &again);
    CHECK(again == next);
  }
}

TEST_CASE("paper_table: files go on where they were, and the table says what is missing") {
  auto const folder = std::filesystem::temp_directory_path() / "slimtrim_paper_table_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  std::string const out = folder.string();
  row_file row;
  row.say("device", "a card with a name");
  row.set("decode_seconds_1", 0.004);
  row.set("memory_bytes_1", 2.0 * 1024 * 1024 * 1024);
  row.set("layers", 32);
  row.set("layers_in_memory", 16);
  row.save(out + "/mixtral-base.row");
  row.set("decode_seconds_1", 0.001);
  row.save(out + "/mixtral-4bit.row");
  CHECK(row_file::load(out + "/mixtral-base.row").get("decode_seconds_1") == 0.004);
  CHECK(row_file::load(out + "/mixtral-base.row").text("device") == "a card with a name");
  CHECK(row_file::load(out + "/nothing.row").empty());
  row_file none;
  none.say("not_measured", "torch is not installed");
  none.save(out + "/mixtral-transformers.row");
  std::string const table = write_table(out);
  CHECK(table.find("| 4-bit | 1.000 / 0.000 / 0.000 | 0.000 | 2.00 | - | 4.00x | - | - | 5.08x, 24.4 GiB |") !=
        std::string::npos);
  CHECK(table.find("not measured: torch is not installed") != std::string::npos);
  CHECK(table.find("a slab of 16 of 32 layers") != std::string::npos);
  CHECK(table.find("| L8/32 + 4-bit | not measured |") != std::string::npos);
  CHECK(std::filesystem::exists(folder / "results.json"));
  std::ofstream(folder / "broken.row") << "number x y\n";
  CHECK_THROWS_AS(static_cast<void>(row_file::load(out + "/broken.row")), input_error);
  std::filesystem::remove_all(folder);
}

}  // namespace cuda_paper_table_test
