// Which tensors the output has: what is copied, sliced, slimmed, renamed, left out.
#include <slimtrim/pipeline/output_modules.hpp>

#include <slimtrim/io/atomic_file.hpp>
#include <slimtrim/io/safetensors.hpp>
#include <slimtrim/model/read_model_config.hpp>
#include <slimtrim/pipeline/recipe_text.hpp>
#include <slimtrim/pipeline/synth.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace pipeline_output_modules_test {

using namespace slimtrim;

namespace {

// A small model with tensors that its family does not know.
struct small_model {
  explicit small_model(std::string const& family = "mixtral") {
    synth_options options;
    options.shape = {.family = family, .layers = 3, .hidden = 32, .intermediate = 48, .experts = 4, .heads = 2, .vocabulary = 300};
    synthesize(folder.path() / "m", options);
    // Unknown tensors go into a second shard.
    std::vector<tensor_description> const extra{{"model.layers.2.extra.bias", dtype::float32, {2}},
                                                {"model.layers.x.strange", dtype::float32, {2}},
                                                {"mtp.head", dtype::float32, {2}}};
    checkpoint const before = checkpoint::open(folder.path() / "m");
    ordered_json map = ordered_json::object();
    for (tensor_info const& tensor : before.tensors()) map[tensor.name] = "model-00001-of-00002.safetensors";
    for (tensor_description const& tensor : extra) map[tensor.name] = "model-00002-of-00002.safetensors";
    std::filesystem::rename(folder.path() / "m/model.safetensors", folder.path() / "m/model-00001-of-00002.safetensors");
    folder.write("m/model.safetensors.index.json", ordered_json{{"metadata", {{"total_size", 0}}}, {"weight_map", map}}.dump());
    atomic_file file(folder.path() / "m/model-00002-of-00002.safetensors");
    safetensors_writer writer(file.open(), plan_safetensors(extra, {{"format", "pt"}}));
    for (tensor_description const& tensor : extra) writer.write(tensor.name, std::as_bytes(std::span("1234567", 8)));
    writer.finish();
    file.commit();
    files.emplace(checkpoint::open(folder.path() / "m"));
    config = read_model_config(files->config(), "config.json");
  }
  [[nodiscard]] output_modules list(plan const& p) const { return list_output_modules(*files, config, p, scale_type::bfloat16); }

  temporary_folder folder;
  std::optional<checkpoint> files;
  model_config config;
};

std::map<std::string, copied_tensor> by_source(output_modules const& modules) {
  std::map<std::string, copied_tensor> result;
  for (copied_tensor const& copy : modules.copies) result.emplace(copy.source.name, copy);
  return result;
}

}  // namespace

TEST_CASE("keeping everything copies every tensor under its name") {
  small_model const m;
  output_modules const all = m.list(keep_everything(m.config));
  CHECK(all.copies.size() == m.files->tensors().size());
  for (copied_tensor const& copy : all.copies) {
    CHECK(copy.name == copy.source.name);
    CHECK_FALSE(copy.rows);
  }
  CHECK(all.slimmed.empty());
  std::vector<std::string> unknown = all.passed_through;
  std::sort(unknown.begin(), unknown.end());
  CHECK(unknown == std::vector<std::string>{"model.layers.2.extra.bias", "model.layers.x.strange", "mtp.head"});
  auto const dense = [&](std::string const& stem) {
    return std::find(all.dense_linears.begin(), all.dense_linears.end(), stem) != all.dense_linears.end();
  };
  CHECK(dense("lm_head"));
  CHECK(dense("model.layers.0.block_sparse_moe.gate"));
  CHECK_FALSE(dense("model.embed_tokens"));
  CHECK_FALSE(dense("model.norm"));
}

TEST_CASE("trimming: renumbered, sliced, left out") {
  small_model const m;
  plan p = keep_everything(m.config);
  p.layer(0).block = false;
  p.layer(1).feed_forward = false;
  p.layer(2).experts = {1, 3};
  auto const copies = by_source(m.list(p));
  CHECK(copies.count("model.layers.0.self_attn.q_proj.weight") == 0);
  CHECK(copies.at("model.layers.1.self_attn.q_proj.weight").name == "model.layers.0.self_attn.q_proj.weight");
  CHECK(copies.count("model.layers.1.post_attention_layernorm.weight") == 0);
  CHECK(copies.count("model.layers.1.block_sparse_moe.gate.weight") == 0);
  copied_tensor const& router = copies.at("model.layers.2.block_sparse_moe.gate.weight");
  CHECK(router.name == "model.layers.1.block_sparse_moe.gate.weight");
  REQUIRE(router.rows);
  CHECK(*router.rows == std::vector<index_t>{1, 3});
  CHECK(copies.at("model.layers.2.block_sparse_moe.experts.3.w2.weight").name == "model.layers.1.block_sparse_moe.experts.1.w2.weight");
  CHECK(copies.count("model.layers.2.block_sparse_moe.experts.0.w2.weight") == 0);
  // Unknown tensors follow their layer where they name one.
  CHECK(copies.at("model.layers.2.extra.bias").name == "model.layers.1.extra.bias");
  CHECK(copies.at("model.layers.x.strange").name == "model.layers.x.strange");
  CHECK(copies.at("mtp.head").name == "mtp.head");
  p = keep_everything(m.config);
  p.layer(2).block = false;
  CHECK(by_source(m.list(p)).count("model.layers.2.extra.bias") == 0);
}

TEST_CASE("slimming: steps, schemes, names") {
  small_model const m;
  plan p = keep_everything(m.config);
  p.layer(0).block = false;
  p.slimming = parse_recipe("rtn:4g16").steps;
  output_modules const modules = m.list(p);
  CHECK(modules.slimmed.size() == 2 * (4 + 4 * 3));
  for (slimmed_module const& each : modules.slimmed) {
    REQUIRE(each.scheme);
    CHECK(each.scheme->bits == 4);
    CHECK(each.scheme->group == 16);
    CHECK(each.to.layer == each.from.layer - 1);
    CHECK(each.stem + ".weight" == each.dense.name);
    CHECK(std::find(modules.dense_linears.begin(), modules.dense_linears.end(), each.stem) == modules.dense_linears.end());
  }
  // A group wider than the row is the channel.
  p.slimming = parse_recipe("rtn:4g32").steps;
  for (slimmed_module const& each : m.list(p).slimmed) CHECK(each.scheme->group == (each.columns < 32 ? 0 : 32));
  p.slimming = parse_recipe("rtn:4g4096").steps;
  for (slimmed_module const& each : m.list(p).slimmed) CHECK(each.scheme->group == 0);
  p.slimming = parse_recipe("magnitude:2:4").steps;
  for (slimmed_module const& each : m.list(p).slimmed) CHECK_FALSE(each.scheme);
  p.slimming = parse_recipe("magnitude:2:4+gptq:4g16").steps;
  output_modules const both = m.list(p);
  CHECK(both.slimmed.front().steps.size() == 2);
  CHECK_FALSE(both.slimmed.front().scheme->activation_order);  // with what was pruned given, columns go in their order
  p.slimming = parse_recipe("gptq:4g16").steps;
  CHECK(m.list(p).slimmed.front().scheme->activation_order);
  p.slimming.front().quantization.order = sweep_order::automatic;
  CHECK(m.list(p).slimmed.front().scheme->activation_order);
  p.slimming.front().quantization.order = sweep_order::natural;
  CHECK_FALSE(m.list(p).slimmed.front().scheme->activation_order);
}

TEST_CASE("slimming a weight that is packed already is refused") {
  temporary_folder const folder;
  synth_options options;
  options.shape = {.family = "mixtral", .layers = 1, .hidden = 32, .intermediate = 48, .experts = 2, .heads = 2, .vocabulary = 300};
  synthesize(folder.path() / "m", options);
  model_config const config = synth_config(options.shape);
  std::filesystem::create_directories(folder.path() / "p");
  folder.write("p/config.json", folder.read("m/config.json"));
  std::vector<tensor_description> const tensors{{"model.layers.0.self_attn.q_proj.weight_packed", dtype::int32, {32, 4}}};
  {
    atomic_file file(folder.path() / "p/model.safetensors");
    safetensors_writer writer(file.open(), plan_safetensors(tensors, {{"format", "pt"}}));
    std::vector<std::byte> const zeros(512);
    writer.write(tensors[0].name, zeros);
    writer.finish();
    file.commit();
  }
  checkpoint const packed = checkpoint::open(folder.path() / "p");
  plan p = keep_everything(config);
  CHECK(list_output_modules(packed, config, p, scale_type::bfloat16).copies.front().name == tensors[0].name);
  p.slimming = parse_recipe("rtn:4g16").steps;
  try {
    static_cast<void>(list_output_modules(packed, config, p, scale_type::bfloat16));
    FAIL("accepted");
  } catch (input_error const& e) {
    CHECK(std::string(e.what()).find("tensor 'model.layers.0.self_attn.q_proj.weight_packed': is packed already") != std::string::npos);
  }
}

}  // namespace pipeline_output_modules_test
