#include <slimtrim/model/check_tensors.hpp>

#include <slimtrim/model/read_model_config.hpp>

#include <doctest/doctest.h>

#include <algorithm>

namespace model_check_tensors_test {

using namespace slimtrim;

namespace {

model_config small(char const* change_key = nullptr, ordered_json value = nullptr) {
  ordered_json config = parse_json(R"({"model_type": "deepseek", "vocab_size": 10, "hidden_size": 8,
    "intermediate_size": 12, "moe_intermediate_size": 6, "num_hidden_layers": 3, "num_attention_heads": 2,
    "n_routed_experts": 2, "n_shared_experts": 1, "num_experts_per_tok": 1, "first_k_dense_replace": 1})",
                                   "config.json");
  if (change_key != nullptr) config[change_key] = std::move(value);
  return read_model_config(config, "config.json");
}

std::vector<tensor_info> tensors_of(model_config const& config) {
  std::vector<tensor_info> tensors;
  for_each_module(config, [&](module_id id) {
    tensor_info tensor;
    tensor.name = module_name(*config.family, id);
    tensor.type = dtype::bfloat16;
    tensor.shape = module_shape(config, id);
    tensors.push_back(std::move(tensor));
  });
  std::sort(tensors.begin(), tensors.end(), [](auto const& a, auto const& b) { return a.name < b.name; });
  return tensors;
}

std::string refusal(model_config const& config, std::vector<tensor_info> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](auto const& a, auto const& b) { return a.name < b.name; });
  try {
    static_cast<void>(check_tensors(config, tensors, "m"));
  } catch (input_error const& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("fitting tensors pass, unknown ones are listed") {
  auto const config = small();
  auto tensors = tensors_of(config);
  CHECK(check_tensors(config, tensors, "m").empty());
  tensor_info extra;
  extra.name = "model.layers.0.self_attn.rotary_emb.inv_freq";
  tensors.push_back(extra);
  std::sort(tensors.begin(), tensors.end(), [](auto const& a, auto const& b) { return a.name < b.name; });
  auto const unknown = check_tensors(config, tensors, "m");
  REQUIRE(unknown.size() == 1);
  CHECK(unknown[0]->name == extra.name);
}

TEST_CASE("every role: missing, wrong type, wrong shape, wrong rank are refused with tensor and role") {
  auto const config = small();
  auto const good = tensors_of(config);
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string const place = "m: tensor '" + good[i].name + "' (" +
                              std::string(role_name(parse_module(*config.family, good[i].name)->role)) + "): ";
    auto tensors = good;
    tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(i));
    CHECK(refusal(config, tensors) == place + "expected by config.json, not found");
    tensors = good;
    tensors[i].type = dtype::int32;
    CHECK(refusal(config, tensors) == place + "expected BF16, F16 or F32, found I32");
    tensors = good;
    tensors[i].shape[0] += 1;
    CHECK(refusal(config, tensors).find(place + "expected shape [") == 0);
    tensors = good;
    tensors[i].shape.push_back(1);
    CHECK(refusal(config, tensors).find(place + "expected shape [") == 0);
  }
}

TEST_CASE("tensors beyond the config are refused, except a tied head") {
  auto const full = tensors_of(small());
  CHECK(refusal(small("num_hidden_layers", 2), full).find("but config.json has no such module (2 layers)") !=
        std::string::npos);
  CHECK(refusal(small("drop_mlp_list", ordered_json::array({2})), full).find("no such module") != std::string::npos);
  auto shared_gone = small("n_shared_experts", nullptr);
  CHECK(refusal(shared_gone, full).find("(shared ") != std::string::npos);
  auto const tied = small("tie_word_embeddings", true);
  auto const unknown = check_tensors(tied, full, "m");
  REQUIRE(unknown.size() == 1);
  CHECK(unknown[0]->name == "lm_head.weight");
}

TEST_CASE("a novice stands for its expert, a voucher for a packed module") {
  auto const config = small();
  auto tensors = tensors_of(config);
  std::string const prefix = "model.layers.1.mlp.experts.0.";
  tensors.erase(std::remove_if(tensors.begin(), tensors.end(),
                               [&](auto const& t) { return t.name.compare(0, prefix.size(), prefix) == 0; }),
                tensors.end());
  CHECK(refusal(config, tensors).find("not found") != std::string::npos);
  tensor_info novice;
  novice.name = prefix + "novice";
  novice.type = dtype::float32;
  novice.shape = {8};
  tensors.push_back(novice);
  CHECK(refusal(config, tensors) == "accepted");
  tensors.back().shape = {7};
  CHECK(refusal(config, tensors).find("novice") != std::string::npos);

  auto fewer = tensors_of(config);
  fewer.erase(std::remove_if(fewer.begin(), fewer.end(),
                             [](auto const& t) { return t.name.find("q_proj") != std::string::npos; }),
              fewer.end());
  auto const packed = [](module_id id) { return id.role == module_role::query; };
  CHECK(check_tensors(config, fewer, "m", packed).empty());
}

TEST_CASE("a huge declared model fails at its first missing tensor") {
  ordered_json config = parse_json(R"({"model_type": "mixtral", "vocab_size": 268435456, "hidden_size": 16777216,
    "intermediate_size": 16777216, "num_hidden_layers": 4096, "num_attention_heads": 2, "num_local_experts": 65536,
    "num_experts_per_tok": 65536})",
                                   "config.json");
  CHECK(refusal(read_model_config(config, "config.json"), {}) ==
        "m: tensor 'model.embed_tokens.weight' (embedding): expected by config.json, not found");
}

}  // namespace model_check_tensors_test
