#include <slimtrim/model/module.hpp>

#include <slimtrim/model/known_families.hpp>

#include <doctest/doctest.h>

#include <set>

namespace model_module_test {

using namespace slimtrim;

namespace {

model_config three_layers(model_family const& family) {
  model_config m;
  m.family = &family;
  m.hidden = 8;
  m.heads = 4;
  m.key_value_heads = 2;
  m.head_dim = 6;
  m.vocabulary = 10;
  m.layers.resize(3);
  m.layers[0].experts = 3;
  m.layers[0].intermediate = 5;
  m.layers[0].shared_intermediate = 7;
  m.layers[1].feed_forward = feed_forward_kind::none;
  m.layers[2].attention = false;
  m.layers[2].feed_forward = feed_forward_kind::dense;
  m.layers[2].intermediate = 9;
  return m;
}

}  // namespace

TEST_CASE("names and modules are inverse") {
  for (model_family const* const family : known_families) {
    std::set<std::string> names;
    for (tensor_pattern const& each : family->tensors) {
      if (each.name.empty()) continue;
      bool const in_layer = each.name.find("{layer}") != std::string_view::npos;
      bool const in_expert = each.name.find("{expert}") != std::string_view::npos;
      module_id const id{each.role, in_layer ? 11 : 0, in_expert ? 104 : 0};
      std::string const name = module_name(*family, id);
      CAPTURE(name);
      CHECK(names.insert(name).second);
      CHECK(parse_module(*family, name) == id);
    }
  }
  CHECK(module_name(mixtral_family, {module_role::down, 3, 7}) == "model.layers.3.block_sparse_moe.experts.7.w2.weight");
  CHECK(module_name(mixtral_family, {module_role::shared_up, 0, 0}).empty());
  CHECK(module_stem(mixtral_family, {module_role::query, 3, 0}) == "model.layers.3.self_attn.q_proj");
}

TEST_CASE("names that only look like modules are not") {
  for (char const* const name :
       {"", "model", "model.norm.weight ", "model.layers..self_attn.q_proj.weight",
        "model.layers.01.self_attn.q_proj.weight", "model.layers.-1.self_attn.q_proj.weight",
        "model.layers.+1.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weightx",
        "model.layers.99999999999999999999.self_attn.q_proj.weight", "model.layers.1.self_attn.rotary_emb.inv_freq",
        "xmodel.norm.weight"})
    CHECK_FALSE(parse_module(mixtral_family, name));
}

TEST_CASE("parts of packed formats belong to their module") {
  std::string_view suffix;
  auto const id = parse_module_part(mixtral_family, "model.layers.2.block_sparse_moe.experts.1.w3.weight_packed", suffix);
  REQUIRE(id);
  CHECK(*id == module_id{module_role::up, 2, 1});
  CHECK(suffix == "weight_packed");
  CHECK(parse_module_part(mixtral_family, "lm_head.weight", suffix) == module_id{module_role::head, 0, 0});
  CHECK_FALSE(parse_module_part(mixtral_family, "lm_heads.weight", suffix));
  CHECK_FALSE(parse_module_part(mixtral_family, "weight", suffix));
}

TEST_CASE("the modules of a model, their shapes, and membership") {
  auto const m = three_layers(deepseek_family);
  index_t count = 0;
  std::set<std::string> names;
  for_each_module(m, [&](module_id id) {
    ++count;
    CHECK(has_module(m, id));
    CHECK(names.insert(module_name(deepseek_family, id)).second);
    for (index_t const extent : module_shape(m, id)) CHECK(extent > 0);
  });
  // Ends 3; layer 0: attention 5, norm, router, 9 experts' matrices, 3 shared; layer 1: 5; layer 2: norm and 3.
  CHECK(count == 3 + 5 + 1 + 1 + 9 + 3 + 5 + 4);
  CHECK(module_shape(m, {module_role::query, 0, 0}) == std::vector<index_t>{24, 8});
  CHECK(module_shape(m, {module_role::key, 0, 0}) == std::vector<index_t>{12, 8});
  CHECK(module_shape(m, {module_role::output, 0, 0}) == std::vector<index_t>{8, 24});
  CHECK(module_shape(m, {module_role::router, 0, 0}) == std::vector<index_t>{3, 8});
  CHECK(module_shape(m, {module_role::down, 0, 0}) == std::vector<index_t>{8, 5});
  CHECK(module_shape(m, {module_role::shared_gate, 0, 0}) == std::vector<index_t>{7, 8});
  CHECK(module_shape(m, {module_role::dense_up, 2, 0}) == std::vector<index_t>{9, 8});
  CHECK(has_module(m, {module_role::novice, 0, 2}));
  CHECK_FALSE(has_module(m, {module_role::gate, 0, 3}));
  CHECK_FALSE(has_module(m, {module_role::router, 1, 0}));
  CHECK_FALSE(has_module(m, {module_role::feed_forward_norm, 1, 0}));
  CHECK_FALSE(has_module(m, {module_role::query, 2, 0}));
  CHECK_FALSE(has_module(m, {module_role::query, 3, 0}));
  CHECK_FALSE(has_module(m, {module_role::dense_up, 0, 0}));
  auto tied = m;
  tied.tied_embeddings = true;
  CHECK_FALSE(has_module(tied, {module_role::head, 0, 0}));
}

}  // namespace model_module_test
