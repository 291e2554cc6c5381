// Trimming models that are quantised already: whatever stays is the input's bytes under its new name, in every packed format.
#include <pipeline/support.hpp>

#include <slimtrim/io/json_fields.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

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
    if (id->role == module_role::router) {
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
    check_surgery(packed, open_model(folder.path() / (format + "d")), decided);
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
