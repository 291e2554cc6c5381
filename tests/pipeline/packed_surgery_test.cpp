// Trimming models that are quantised already: whatever stays is the input's bytes under its new name, in every packed format.
#include <pipeline/support.hpp>

#include <slimtrim/core/float8.hpp>
#include <slimtrim/io/atomic_file.hpp>
#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/io/safetensors.hpp>
#include <slimtrim/pipeline/price.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace pipeline_packed_surgery_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

std::string raw(checkpoint const& files, std::string const& name) {
  auto const bytes = files.bytes(name);
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

enum class float8_kind { block, tensor, channel };

// The model with all linears of its layers in E4M3: blocks of 128 x 128 as DeepSeek-V3 has them, or one scale a tensor or a row
// as compressed-tensors has them. Routers, norms and ends stay.
void write_float8(std::filesystem::path const& from, std::filesystem::path const& to, float8_kind kind) {
  opened_model const model = open_model(from);
  model_family const& family = *model.config.family;
  std::vector<tensor_description> described;
  std::map<std::string, std::string> bytes;
  std::vector<std::string> dense;
  for (tensor_info const& tensor : model.files->tensors()) {
    auto const id = parse_module(family, tensor.name);
    REQUIRE(id);
    bool const linear = is_matrix_role(id->role) && id->role != module_role::router && (is_attention_role(id->role) || is_feed_forward_role(id->role));
    if (id->role == module_role::router) dense.push_back(module_stem(family, *id));
    if (!linear) {
      described.push_back(tensor);
      bytes[tensor.name] = raw(*model.files, tensor.name);
      continue;
    }
    auto const W = expand(model.weights->matrix(*id).view);
    index_t const rows = W.extent(0), columns = W.extent(1);
    index_t const high = kind == float8_kind::block ? 128 : (kind == float8_kind::channel ? 1 : rows);
    index_t const wide = kind == float8_kind::block ? 128 : columns;
    index_t const down = ceil_div(rows, high), across = ceil_div(columns, wide);
    std::vector<float> scales(static_cast<std::size_t>(down * across), 0.0F);
    auto const scale = [&](index_t r, index_t c) -> float& { return scales[static_cast<std::size_t>(r / high * across + c / wide)]; };
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < columns; ++c) scale(r, c) = std::max(scale(r, c), std::abs(W(r, c)) / 448.0F);
    std::string codes;
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < columns; ++c) codes.push_back(static_cast<char>(float8_e4m3(W(r, c) / scale(r, c)).bits));
    std::string const stem = module_stem(family, *id), name = stem + (kind == float8_kind::block ? ".weight_scale_inv" : ".weight_scale");
    described.push_back({tensor.name, dtype::float8_e4m3, tensor.shape});
    bytes[tensor.name] = codes;
    described.push_back({name, dtype::float32, kind == float8_kind::tensor ? std::vector<index_t>{1} : std::vector<index_t>{down, across}});
    bytes[name] = {reinterpret_cast<char const*>(scales.data()), scales.size() * sizeof(float)};
    // Activation scales stand beside some weights.
    if (kind == float8_kind::tensor) {
      described.push_back({stem + ".input_scale", dtype::float32, {1}});
      bytes[stem + ".input_scale"] = std::string(4, '\0');
    }
  }
  dense.push_back("re:.*norm$");
  dense.push_back("lm_head");
  ordered_json config = model.files->config();
  if (kind == float8_kind::block) {
    config["quantization_config"] = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"},
                                     {"weight_block_size", {128, 128}}, {"modules_to_not_convert", dense}};
  } else {
    ordered_json const weights{{"num_bits", 8}, {"type", "float"}, {"strategy", kind == float8_kind::tensor ? "tensor" : "channel"}};
    config["quantization_config"] = {{"quant_method", "compressed-tensors"}, {"format", "float-quantized"},
                                     {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", weights}}}}}, {"ignore", dense}};
  }
  std::filesystem::create_directories(to);
  std::ofstream(to / "config.json") << json_text(config);
  atomic_file file(to / "model.safetensors");
  safetensors_writer writer(file.open(), plan_safetensors(described, {{"format", "pt"}}));
  for (tensor_description const& tensor : described) writer.write(tensor.name, std::as_bytes(std::span(bytes.at(tensor.name))));
  writer.finish();
  file.commit();
}

// Every tensor of `out` is one of `in` whole, or some rows of a router; nothing else is there, and nothing that stays is missing.
void check_surgery(opened_model const& in, opened_model const& out, plan const& p) {
  model_family const& family = *in.config.family;
  std::size_t expected = 0;
  for (tensor_info const& tensor : in.files->tensors()) {
    std::string_view suffix;
    auto id = parse_module(family, tensor.name);
    bool const whole = id.has_value();
    if (!id) id = parse_module_part(family, tensor.name, suffix);
    REQUIRE(id);
    auto const target = planned_module(p, *id);
    if (!target) continue;
    ++expected;
    std::string const name = whole ? module_name(family, *target) : module_stem(family, *target) + "." + std::string(suffix);
    CAPTURE(name);
    REQUIRE(out.files->find(name) != nullptr);
    std::string const before = raw(*in.files, tensor.name);
    if (id->role == module_role::router || id->role == module_role::router_bias) {
      std::size_t const row = before.size() / static_cast<std::size_t>(tensor.shape[0]);
      std::string rows;
      for (index_t const e : p.layer(id->layer).experts) rows += before.substr(static_cast<std::size_t>(e) * row, row);
      CHECK((raw(*out.files, name) == rows));
    } else {
      CHECK((raw(*out.files, name) == before));
      CHECK(out.files->find(name)->type == tensor.type);
      CHECK(out.files->find(name)->shape == tensor.shape);
    }
  }
  CHECK(out.files->tensors().size() == expected);
}

}  // namespace

TEST_CASE("experts, layers and blocks of packed models go without touching what stays") {
  temporary_folder const folder;
  write_synthetic(folder.path() / "m", {.family = "mixtral", .layers = 4, .hidden = 64, .intermediate = 128, .experts = 4, .heads = 2, .vocabulary = 2048});
  opened_model const model = open_model(folder.path() / "m");
  for (std::string const format : {"compressed-tensors", "awq", "gptq"}) {
    CAPTURE(format);
    compress_options options;
    options.format = format;
    compress_model(model, slim_plan(model.config, "rtn:4g32"), folder.path() / format, options);
    opened_model const packed = open_model(folder.path() / format);
    REQUIRE(packed.format);
    plan experts = keep_everything(packed.config);
    for (layer_plan& layer : experts.layers) layer.experts = {0, 3};
    experts.layer(2).experts = {1, 2};
    plan uneven = keep_everything(packed.config);
    uneven.layer(1).experts = {0, 2, 3};
    plan layers = keep_everything(packed.config);
    layers.layer(0).feed_forward = layers.layer(3).attention = false;
    plan blocks = keep_everything(packed.config);
    blocks.layer(1).block = false;
    plan all = blocks;
    all.layer(2).feed_forward = false;
    all.layer(3).experts = {1, 2, 3};
    int number = 0;
    for (plan const& p : {experts, uneven, layers, blocks, all}) {
      std::string const name = format + std::to_string(number++);
      compress_model(packed, p, folder.path() / name);
      opened_model const out = open_model(folder.path() / name);
      check_surgery(packed, out, p);
      // And it computes what the plan showed.
      opened_model const seen = planned_model(packed, p);
      CHECK(evaluate_model(out, &seen, valid_windows(1, 24)).kl_mean == 0);
    }
    // Statistics of the packed model decide like those of any other.
    token_windows const windows = train_windows(2, 24);
    plan const decided = decide_plan("expert_drop:3/4+layer_drop:1", {.model = &packed, .data = &windows});
    compress_model(packed, decided, folder.path() / (format + "d"));
    opened_model const once = open_model(folder.path() / (format + "d"));
    check_surgery(packed, once, decided);
    // And what was trimmed once is trimmed again: experts after a layer, another layer, a block.
    plan const again = decide_plan("expert_drop:2/3@global+layer_drop:1+block_drop:1", {.model = &once, .data = &windows});
    compress_model(once, again, folder.path() / (format + "t"));
    opened_model const twice = open_model(folder.path() / (format + "t")), seen = planned_model(once, again);
    check_surgery(once, twice, again);
    CHECK(twice.config.layer_count() == 3);
    CHECK(evaluate_model(twice, &seen, valid_windows(1, 24)).kl_mean == 0);
  }
}

TEST_CASE("8-bit floats: weights and their scales move together, byte for byte") {
  temporary_folder const folder;
  // 192 = 128 + 64: blocks are ragged. Family deepseek adds a bias that selects, groups of experts, shared and dense layers.
  write_synthetic(folder.path() / "m", {.family = "mixtral", .layers = 4, .hidden = 192, .intermediate = 160, .experts = 4, .heads = 2, .vocabulary = 2048});
  write_synthetic(folder.path() / "d", {.family = "deepseek", .layers = 4, .hidden = 192, .intermediate = 160, .experts = 4, .heads = 2, .vocabulary = 2048});
  for (std::string const from : {"m", "d"})
    for (float8_kind const kind : {float8_kind::block, float8_kind::tensor, float8_kind::channel}) {
      std::string const name = from + std::to_string(static_cast<int>(kind));
      CAPTURE(name);
      write_float8(folder.path() / from, folder.path() / name, kind);
      opened_model const packed = open_model(folder.path() / name);
      REQUIRE(packed.format);
      // The weights are those that were rounded: no element is off by more than half a step of its block's largest.
      CHECK(evaluate_model(packed, nullptr, valid_windows(1, 24)).nll > 0);
      plan p = keep_everything(packed.config);
      p.layer(1).block = false;
      p.layer(2).experts = {1, 2, 3};
      p.layer(3).feed_forward = from == "d";
      p.layer(0).attention = false;
      compress_model(packed, p, folder.path() / (name + "o"));
      opened_model const out = open_model(folder.path() / (name + "o")), seen = planned_model(packed, p);
      check_surgery(packed, out, p);
      CHECK(evaluate_model(out, &seen, valid_windows(1, 24)).kl_mean == 0);
      inspection const priced = price(packed, p), counted = inspect(*out.files, out.config);
      CHECK(priced.file_bytes == counted.file_bytes);
      CHECK(counted.components[static_cast<std::size_t>(component::other)].bytes == 0);
      // Lists of modules in config.json follow the new numbers; patterns and what is no module stay.
      ordered_json const& quantization = out.files->config()["quantization_config"];
      ordered_json const& dense = quantization[kind == float8_kind::block ? "modules_to_not_convert" : "ignore"];
      ordered_json expected = ordered_json::array();
      for (index_t i = 0; i < packed.config.layer_count(); ++i)
        if (auto const to = planned_module(p, {module_role::router, i, 0});
            to && packed.config.layer(i).feed_forward == feed_forward_kind::moe)
          expected.push_back(module_stem(*packed.config.family, *to));
      expected.push_back("re:.*norm$");
      expected.push_back("lm_head");
      CHECK(dense == expected);
      // Statistics of the model decide like those of any other; what would need other codes is refused by name.
      token_windows const windows = train_windows(2, 24);
      plan const decided = decide_plan("layer_drop:1+expert_drop:3/4@global", {.model = &packed, .data = &windows});
      compress_model(packed, decided, folder.path() / (name + "e"));
      check_surgery(packed, open_model(folder.path() / (name + "e")), decided);
      for (std::string const recipe : {"recover", "rtn:4g32", "neuron_drop:128", "expert_merge:3/4"}) {
        CAPTURE(recipe);
        if (from == "d" && recipe == "neuron_drop:128") continue;  // refused for its shared experts, packed or not
        compress_options options;
        options.data = &windows;
        plan const changes = decide_plan(recipe, {.model = &packed, .data = &windows});
        CHECK(has(message_of<input_error>([&] { compress_model(packed, changes, folder.path() / "no", options); }), "is packed already"));
      }
    }
}

TEST_CASE("novices in a packed model: constants beside packed experts") {
  temporary_folder const folder;
  write_synthetic(folder.path() / "m", {.family = "mixtral", .layers = 2, .hidden = 64, .intermediate = 128, .experts = 4, .heads = 2, .vocabulary = 2048});
  opened_model const model = open_model(folder.path() / "m");
  compress_model(model, slim_plan(model.config, "rtn:4g32"), folder.path() / "q");
  opened_model const packed = open_model(folder.path() / "q");
  token_windows const windows = train_windows(2, 24);
  plan const p = decide_plan("novice:3/4", {.model = &packed, .data = &windows});
  compress_model(packed, p, folder.path() / "n");
  opened_model const out = open_model(folder.path() / "n"), seen = planned_model(packed, p);
  CHECK(evaluate_model(out, &seen, windows).kl_mean == 0);
  CHECK(out.files->file_bytes() < packed.files->file_bytes());
}

}  // namespace pipeline_packed_surgery_test
