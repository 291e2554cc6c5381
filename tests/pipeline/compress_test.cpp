// Writing the model of a plan: the same bytes every time, what was promised in every tensor, and nothing left after a failure.
#include <slimtrim/pipeline/compress.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/io/json_fields.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_compress_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

bool same_values(weight_view const& a, weight_view const& b) {
  tensor<float, 2> const x = expand(a), y = expand(b);
  if (x.extent(0) != y.extent(0) || x.extent(1) != y.extent(1)) return false;
  for (index_t i = 0; i < x.extent(0); ++i)
    for (index_t j = 0; j < x.extent(1); ++j)
      if (x(i, j) != y(i, j)) return false;
  return true;
}

std::string raw(checkpoint const& files, std::string const& name) {
  auto const bytes = files.bytes(name);
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE("layer drop and rtn: byte-identical folders, exactly rtn's values") {
  temporary_folder const folder;
  plan p = slim_plan(bundled().config, "rtn:4g128");
  p.layer(3).feed_forward = false;
  compress_options options;
  std::vector<std::string> stages;
  options.progress = [&](progress const& each) {
    CHECK(each.done <= each.total);
    CHECK(each.unit == "tensors");
    stages.emplace_back(each.stage);
  };
  compress_result const result = compress_model(bundled(), p, folder.path() / "a", options);
  CHECK_FALSE(stages.empty());
  compress_model(bundled(), p, folder.path() / "b");
  compress_model(bundled(), p, folder.path() / "c", {}, 2);
  auto const a = files_of(folder.path() / "a");
  CHECK(a == files_of(folder.path() / "b"));
  CHECK(a == files_of(folder.path() / "c"));
  CHECK(a.count("tokenizer.json") == 1);
  CHECK(a.at("tokenizer.json") == files_of(bundled_folder()).at("tokenizer.json"));
  CHECK_FALSE(std::filesystem::exists(folder.path() / "a.partial"));

  opened_model const out = open_model(folder.path() / "a");
  REQUIRE(out.format);
  CHECK(out.format->method() == "compressed-tensors");
  CHECK(out.files->file_bytes() == result.bytes_out);
  CHECK(bundled().files->file_bytes() == result.bytes_in);
  CHECK(result.slimmed.size() == 8 * 4 + 7 * 24);
  CHECK(out.config.layer(3).feed_forward == feed_forward_kind::none);
  CHECK(out.files->metadata().size() >= 3);
  for (module_id const id : {module_id{module_role::query, 3}, module_id{module_role::down, 2, 5}, module_id{module_role::up, 7, 0}}) {
    weight const packed = out.weights->matrix(id), original = bundled().weights->matrix(id);
    packed_scheme scheme{.bits = 4, .group = 128};
    CHECK(same_values(packed.view, rtn_values(original.view, scheme, scale_rule::absmax).view()));
  }
  // Untouched tensors are copied byte for byte.
  for (std::string const name : {"lm_head.weight", "model.embed_tokens.weight", "model.layers.0.block_sparse_moe.gate.weight"})
    CHECK(raw(*out.files, name) == raw(*bundled().files, name));
  ordered_json const config = out.files->config();
  CHECK(config["num_local_experts"].dump() == "[8,8,8,-1,8,8,8,8]");
  CHECK(config["quantization_config"]["quant_method"] == "compressed-tensors");
  evaluation const e = evaluate_model(out, &bundled(), valid_windows(2, 64));
  CHECK(e.kl_mean > 0);
  CHECK(e.kl_mean < 1);

  // Shards cut nothing but the file.
  compress_options shards;
  shards.most_shard_bytes = 1'000'000;
  compress_model(bundled(), p, folder.path() / "d", shards);
  opened_model const cut = open_model(folder.path() / "d");
  CHECK(cut.files->shards().size() > 2);
  bool equal = true;
  for (tensor_info const& tensor : out.files->tensors()) equal = equal && raw(*out.files, tensor.name) == raw(*cut.files, tensor.name);
  CHECK(equal);

  // Packed again: what is packed stays, a step on it is refused.
  plan again = keep_everything(out.config);
  again.layer(0).experts = {0, 1, 2, 4, 7};
  compress_model(out, again, folder.path() / "e");
  opened_model const twice = open_model(folder.path() / "e");
  CHECK(same_values(twice.weights->matrix({module_role::up, 0, 3}).view, out.weights->matrix({module_role::up, 0, 4}).view));
  CHECK(has(message_of<input_error>([&] { compress_model(out, slim_plan(out.config, "rtn:4g128"), folder.path() / "f"); }), "is packed already"));
  CHECK_FALSE(std::filesystem::exists(folder.path() / "f"));
}

TEST_CASE("block drop: consecutive layers, an ordinary model") {
  temporary_folder const folder;
  plan p = keep_everything(bundled().config);
  p.layer(2).block = p.layer(4).block = false;
  compress_result const result = compress_model(bundled(), p, folder.path() / "o");
  CHECK(has(result.notes.front(), "same shape as an ordinary mixtral"));
  opened_model const out = open_model(folder.path() / "o");
  CHECK_FALSE(out.format);
  ordered_json expected = bundled().files->config();
  expected["num_hidden_layers"] = 6;
  CHECK(out.files->config() == expected);
  std::vector<index_t> const from{0, 1, 3, 5, 6, 7};
  for (std::size_t i = 0; i < 6; ++i)
    CHECK(raw(*out.files, "model.layers." + std::to_string(i) + ".self_attn.o_proj.weight") ==
          raw(*bundled().files, "model.layers." + std::to_string(from[i]) + ".self_attn.o_proj.weight"));
  CHECK(out.files->find("model.layers.6.self_attn.o_proj.weight") == nullptr);
  // What was written is what the plan showed without writing.
  opened_model const seen = planned_model(bundled(), p);
  evaluation const e = evaluate_model(out, &seen, valid_windows(2, 32));
  CHECK(e.kl_mean == 0);
  CHECK(e.chosen_agreement == 1);
}

TEST_CASE("expert drop slices the router, also when the router itself is slimmed") {
  temporary_folder const folder;
  plan p = keep_everything(bundled().config);
  for (layer_plan& layer : p.layers) layer.experts = {0, 2, 3, 5, 6};
  p.layer(1).experts = {3, 4, 5, 6, 7};
  compress_model(bundled(), p, folder.path() / "o");
  opened_model const out = open_model(folder.path() / "o");
  CHECK(out.files->config()["num_local_experts"] == 5);
  CHECK(out.config.layer(1).original_experts == std::vector<index_t>{3, 4, 5, 6, 7});
  std::string const router = raw(*out.files, "model.layers.0.block_sparse_moe.gate.weight");
  std::string const whole = raw(*bundled().files, "model.layers.0.block_sparse_moe.gate.weight");
  REQUIRE(router.size() == 5 * 256);
  CHECK(router.substr(3 * 256, 256) == whole.substr(5 * 256, 256));
  evaluation const e = evaluate_model(out, &bundled(), valid_windows(2, 64));
  CHECK(e.chosen_agreement > 0);
  CHECK(e.chosen_agreement < 1);

  p.slimming = slim_plan(bundled().config, "magnitude:50%").slimming;
  p.slimming[0].targets = {"router"};
  compress_model(bundled(), p, folder.path() / "r");
  opened_model const pruned = open_model(folder.path() / "r");
  CHECK(pruned.weights->matrix({module_role::router, 0}).rows() == 5);
}

TEST_CASE("formats of packed weights") {
  temporary_folder const folder;
  token_windows const held = valid_windows(2, 64);
  double reference = 0;
  for (std::string const format : {"compressed-tensors", "awq", "gptq"}) {
    CAPTURE(format);
    compress_options options;
    options.format = format;
    compress_model(bundled(), slim_plan(bundled().config, "rtn:4g64"), folder.path() / format, options);
    opened_model const out = open_model(folder.path() / format);
    REQUIRE(out.format);
    CHECK(out.format->method() == format);
    double const kl = evaluate_model(out, &bundled(), held).kl_mean;
    // The same codes; scales in bfloat16 or float16.
    if (reference == 0) reference = kl;
    CHECK(kl == doctest::Approx(reference).epsilon(0.25));
  }
  compress_options options;
  options.format = "awq";
  CHECK_THROWS_AS(compress_model(bundled(), slim_plan(bundled().config, "rtn:3g64"), folder.path() / "x", options), usage_error);
  options.format = "gguf";
  CHECK(has(message_of<usage_error>([&] { compress_model(bundled(), slim_plan(bundled().config, "rtn:4g64"), folder.path() / "x", options); }), "expected compressed-tensors, awq or gptq, found gguf"));
  opened_model const packed = open_model(folder.path() / "gptq");
  CHECK(has(message_of<usage_error>([&] { compress_model(packed, keep_everything(packed.config), folder.path() / "x", options); }), "the input is packed as gptq"));
  // Trimming a packed model keeps its format and what config.json says about it.
  plan p = keep_everything(packed.config);
  p.layer(0).feed_forward = false;
  compress_model(packed, p, folder.path() / "y");
  CHECK(open_model(folder.path() / "y").files->config()["quantization_config"] == packed.files->config()["quantization_config"]);
  CHECK_FALSE(std::filesystem::exists(folder.path() / "x"));
}

TEST_CASE("failures leave nothing") {
  temporary_folder const folder;
  copy_bundled(folder.path() / "bad");
  std::string const name = "model.layers.5.block_sparse_moe.experts.1.w3.weight";
  poke(folder.path() / "bad", name, 1000, 0x7fc0);
  opened_model const bad = open_model(folder.path() / "bad");
  auto const nothing = [&] { return !std::filesystem::exists(folder.path() / "o") && !std::filesystem::exists(folder.path() / "o.partial"); };
  for (std::string const recipe : {"rtn:4g128", "magnitude:50%"}) {
    CHECK(has(message_of<input_error>([&] { compress_model(bad, slim_plan(bad.config, recipe), folder.path() / "o"); }), "tensor '" + name + "'"));
    CHECK(nothing());
  }
  CHECK(has(message_of<usage_error>([&] { compress_model(bundled(), slim_plan(bundled().config, "gptq:4g128"), folder.path() / "o"); }), "give --data"));
  CHECK(nothing());
  compress_options stop;
  index_t steps = 0;
  stop.progress = [&](progress const&) {
    if (++steps == 20) throw interrupted();
  };
  CHECK_THROWS_AS(compress_model(bundled(), keep_everything(bundled().config), folder.path() / "o", stop), interrupted);
  CHECK(nothing());
  plan wrong = keep_everything(bundled().config);
  wrong.layers.pop_back();
  CHECK(has(message_of<input_error>([&] { compress_model(bundled(), wrong, folder.path() / "o"); }), "plan: field 'layers'"));
  CHECK(nothing());

  std::filesystem::create_directories(folder.path() / "there");
  folder.write("there/mine.txt", "kept");
  CHECK_THROWS_AS(compress_model(bundled(), keep_everything(bundled().config), folder.path() / "there"), error);
  CHECK(folder.read("there/mine.txt") == "kept");
  CHECK_THROWS_AS(compress_model(bad, keep_everything(bad.config), folder.path() / "bad" / "inside"), error);
  CHECK_FALSE(std::filesystem::exists(folder.path() / "bad" / "inside"));
}

}  // namespace pipeline_compress_test
