// Counting checkpoints: the bundled model by hand, packed parts, dropped parts, unknown tensors.
#include <slimtrim/pipeline/inspect.hpp>

#include <slimtrim/io/atomic_folder.hpp>
#include <slimtrim/io/sharded_writer.hpp>
#include <slimtrim/pipeline/synth.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_inspect_test {

using namespace slimtrim;

namespace {

amount const& part(inspection const& seen, component which) {
  return seen.components[static_cast<std::size_t>(which)];
}

// Writes tensors of zeros as a checkpoint.
checkpoint write_zeros(std::filesystem::path const& path, std::vector<tensor_description> const& tensors) {
  atomic_folder folder(path);
  folder.write("config.json", "{}");
  sharded_writer writer(folder, tensors);
  for (tensor_description const& tensor : tensors) {
    std::vector<std::byte> const zeros(static_cast<std::size_t>(byte_count(tensor.type, tensor.shape).value()));
    writer.write(tensor.name, zeros);
  }
  writer.finish();
  folder.commit();
  return checkpoint::open(path);
}

}  // namespace

TEST_CASE("a plain model, counted by hand") {
  temporary_folder folder;
  synth_options options;
  options.shape = {.family = "deepseek", .layers = 2, .hidden = 32, .intermediate = 8, .experts = 4, .top_k = 2,
                   .heads = 2, .vocabulary = 10, .shared_experts = 1, .dense_intermediate = 20};
  synthesize(folder.path() / "m", options);
  checkpoint const model = checkpoint::open(folder.path() / "m");
  model_config const config = synth_config(options.shape);
  inspection const seen = inspect(model, config);

  index_t const expert = 3 * 32 * 8;
  CHECK(part(seen, component::experts).parameters == 4 * expert);
  CHECK(part(seen, component::experts).active_parameters == 2 * expert);
  CHECK(part(seen, component::experts).bytes == 2 * 4 * expert);
  CHECK(part(seen, component::shared_experts).active_parameters == expert);
  CHECK(part(seen, component::dense).parameters == 3 * 32 * 20);
  CHECK(part(seen, component::attention).parameters == 2 * 4 * 32 * 32);
  CHECK(part(seen, component::router).parameters == 4 * 32);
  CHECK(part(seen, component::norms).parameters == 5 * 32);
  CHECK(part(seen, component::embedding).active_parameters == 32);
  CHECK(part(seen, component::head).active_parameters == 320);
  CHECK(part(seen, component::other).bytes == 0);
  index_t sum = 0;
  for (tensor_info const& tensor : model.tensors()) sum += static_cast<index_t>(tensor.bytes);
  CHECK(seen.total.bytes == sum);
  CHECK(seen.total.parameters * 2 == sum);
  CHECK(seen.total.active_bytes == 2 * seen.total.active_parameters);
  CHECK(seen.layers[0].parameters == 3 * 32 * 20 + 4 * 32 * 32 + 2 * 32);
  CHECK(seen.file_bytes == model.file_bytes());

  ordered_json const json = inspection_json(seen, config);
  for (char const* const key : {"family", "layers", "experts", "top_k", "parameters", "active_parameters", "bytes",
                                "active_bytes", "layers_detail"})
    CHECK(json.contains(key));
  CHECK(json["experts"] == 4);
  CHECK(json["layers_detail"].size() == 2);
  CHECK(json["layers_detail"][0]["feed_forward"] == "dense");
  CHECK_FALSE(json["components"].contains("other"));
}

TEST_CASE("packed, constant, dropped and unknown parts") {
  temporary_folder folder;
  model_config config = synth_config({.layers = 2, .hidden = 32, .intermediate = 8, .experts = 2, .top_k = 2, .heads = 2,
                                      .vocabulary = 10, .tied_embeddings = true});
  config.layers[1].attention = false;
  config.layers[1].experts = 1;
  config.layers[1].top_k = 1;
  config.layers[1].original_experts = {1};
  std::vector<tensor_description> tensors;
  for_each_module(config, [&](module_id id) {
    if (id.layer == 0 && id.expert == 0 && id.role == module_role::up) {
      tensors.push_back({module_stem(*config.family, id) + ".weight_packed", dtype::int32, {8, 4}});
      tensors.push_back({module_stem(*config.family, id) + ".weight_scale", dtype::bfloat16, {8, 1}});
    } else if (id.layer == 1 && component_of(id.role) == component::experts) {
      if (id.role == module_role::gate)
        tensors.push_back({module_name(*config.family, {module_role::novice, 1, 0}), dtype::float32, {32}});
    } else {
      tensors.push_back({module_name(*config.family, id), dtype::bfloat16, module_shape(config, id)});
    }
  });
  tensors.push_back({"model.layers.0.strange", dtype::uint8, {5}});
  inspection const seen = inspect(write_zeros(folder.path() / "m", tensors), config);
  index_t const matrix = 32 * 8;
  CHECK(seen.layers[0].parameters == 6 * matrix + 4 * 32 * 32 + 2 * 32 + 2 * 32);
  CHECK(part(seen, component::experts).bytes == 5 * 2 * matrix + (8 * 4 * 4 + 8 * 2) + 32 * 4);
  CHECK(part(seen, component::experts).parameters == 6 * matrix + 32);
  CHECK(part(seen, component::attention).bytes == 2 * 4 * 32 * 32);
  CHECK(part(seen, component::other).bytes == 5);
  // A tied embedding is the head too.
  CHECK(part(seen, component::embedding).active_bytes == 2 * 320);
  ordered_json const json = inspection_json(seen, config);
  CHECK(json["experts"] == ordered_json({2, 1}));
  CHECK(json["layers_detail"][1]["attention"] == false);
  CHECK(json["layers_detail"][1]["original_experts"] == ordered_json({1}));
}

}  // namespace pipeline_inspect_test
