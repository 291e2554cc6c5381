#include <slimtrim/model/plain_weights.hpp>

#include <slimtrim/io/json.hpp>
#include <slimtrim/model/read_model_config.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>

namespace model_plain_weights_test {

using namespace slimtrim;

namespace {

// A checkpoint whose data starts at an odd address, so that no tensor but bytes can be viewed in place.
void write_odd_checkpoint(std::filesystem::path const& folder, ordered_json const& config) {
  std::ofstream(folder / "config.json") << config.dump();
  model_config const m = read_model_config(config, "config.json");
  ordered_json header = ordered_json::object();
  std::string data;
  int counter = 0;
  for_each_module(m, [&](module_id id) {
    auto const shape = module_shape(m, id);
    index_t count = 1;
    for (index_t const extent : shape) count *= extent;
    bool const wide = id.role == module_role::router, half = id.role == module_role::query;
    std::size_t const begin = data.size();
    for (index_t i = 0; i < count; ++i) {
      float const value = static_cast<float>(++counter % 17) / 8 - 1;  // exact in every type
      char bytes[4];
      std::size_t const size = wide ? 4 : 2;
      if (wide) {
        std::memcpy(bytes, &value, 4);
      } else {
        std::uint16_t const bits = half ? float16(value).bits : bfloat16(value).bits;
        std::memcpy(bytes, &bits, 2);
      }
      data.append(bytes, size);
    }
    header[module_name(*m.family, id)] = {{"dtype", wide ? "F32" : half ? "F16" : "BF16"},
                                          {"shape", shape},
                                          {"data_offsets", {begin, data.size()}}};
  });
  std::string text = header.dump();
  if (text.size() % 2 == 0) text += ' ';
  std::uint64_t const size = text.size();
  std::ofstream file(folder / "model.safetensors", std::ios::binary);
  file.write(reinterpret_cast<char const*>(&size), 8);
  file << text << data;
}

ordered_json config() {
  return parse_json(R"({"model_type": "mixtral", "vocab_size": 6, "hidden_size": 4, "intermediate_size": 3,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1})",
                    "config.json");
}

}  // namespace

TEST_CASE("values of all three types, also at addresses that the type cannot have") {
  temporary_folder const folder;
  write_odd_checkpoint(folder.path(), config());
  auto const files = std::make_shared<checkpoint const>(checkpoint::open(folder.path()));
  model_config const m = read_model_config(files->config(), files->config_place());
  CHECK(check_tensors(m, files->tensors(), "m").empty());
  plain_weights const source(files, m);
  int counter = 0;
  for_each_module(m, [&](module_id id) {
    CHECK(source.has(id));
    auto const shape = module_shape(m, id);
    auto const next = [&] { return static_cast<float>(++counter % 17) / 8 - 1; };
    if (shape.size() == 1) {
      for (float const value : source.vector(id)) CHECK(value == next());
    } else {
      auto const dense = expand(source.matrix(id).view);
      for (index_t r = 0; r < shape[0]; ++r)
        for (index_t c = 0; c < shape[1]; ++c) CHECK(dense(r, c) == next());
    }
  });
  source.release(0);
  CHECK(expand(source.matrix({module_role::router, 0, 0}).view).extent(0) == 2);
  CHECK_FALSE(source.has({module_role::gate, 0, 2}));
  CHECK_FALSE(source.has({module_role::shared_up, 0, 0}));
  CHECK_THROWS_AS(static_cast<void>(source.matrix({module_role::gate, 0, 2})), input_error);
}

}  // namespace model_plain_weights_test
