// Synthetic checkpoints: what is in the folder, planted redundancy, the same bytes for any number of threads.
#include <slimtrim/pipeline/synth.hpp>

#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/model/check_tensors.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

namespace pipeline_synth_test {

using namespace slimtrim;

namespace {

synth_options small(std::string const& family) {
  synth_options options;
  options.shape = {.family = family, .layers = 3, .hidden = 32, .intermediate = 48, .experts = 4, .heads = 2,
                   .vocabulary = 300};
  return options;
}

double deviation(std::vector<bfloat16> const& values) {
  double squares = 0;
  for (bfloat16 const v : values) squares += std::pow(static_cast<double>(static_cast<float>(v)), 2);
  return std::sqrt(squares / static_cast<double>(values.size()));
}

std::string bytes_of(checkpoint const& model, std::string const& name) {
  auto const bytes = model.bytes(name);
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

}  // namespace

TEST_CASE("a complete model folder for every family") {
  for (model_family const* const family : known_families) {
    temporary_folder folder;
    synth_options const options = small(std::string(family->model_type));
    synth_result const result = synthesize(folder.path() / "m", options);
    checkpoint const model = checkpoint::open(folder.path() / "m");
    CHECK(model.config()["model_type"] == family->model_type);
    CHECK(check_tensors(synth_config(options.shape), model.tensors(), model.place()).empty());
    CHECK(model.file_bytes() == result.file_bytes);
    CHECK(result.files == 1);
    CHECK(model.has_file("tokenizer.json"));
    std::uint64_t elements = 0;
    for (tensor_info const& tensor : model.tensors()) elements += tensor.bytes / 2;
    CHECK(elements == static_cast<std::uint64_t>(result.parameters));
  }
}

TEST_CASE("bytes depend on the seed, not on threads or shards") {
  temporary_folder folder;
  synth_options options = small("deepseek");
  thread_pool pool(2);
  synthesize(folder.path() / "one", options);
  synthesize(folder.path() / "two", options, &pool);
  options.shard_bytes = 20000;
  synth_result const cut = synthesize(folder.path() / "cut", options);
  CHECK(cut.files > 1);
  options.seed = 1;
  synthesize(folder.path() / "other", options);
  CHECK(folder.read("one/model.safetensors") == folder.read("two/model.safetensors"));
  checkpoint const one = checkpoint::open(folder.path() / "one");
  checkpoint const shards = checkpoint::open(folder.path() / "cut");
  checkpoint const other = checkpoint::open(folder.path() / "other");
  for (tensor_info const& tensor : one.tensors()) CHECK(bytes_of(one, tensor.name) == bytes_of(shards, tensor.name));
  CHECK(bytes_of(one, "lm_head.weight") != bytes_of(other, "lm_head.weight"));
}

TEST_CASE("planted redundancy") {
  temporary_folder folder;
  synth_options options = small("mixtral");
  options.identity_layers = {1};
  options.duplicate_experts = 1;
  synthesize(folder.path() / "m", options);
  checkpoint const model = checkpoint::open(folder.path() / "m");
  auto const expert = [](int layer, int e, char const* part) {
    return "model.layers." + std::to_string(layer) + ".block_sparse_moe.experts." + std::to_string(e) + "." + part +
           ".weight";
  };
  for (char const* const part : {"w1", "w2", "w3"}) {
    CHECK(bytes_of(model, expert(0, 3, part)) == bytes_of(model, expert(0, 0, part)));
    CHECK(bytes_of(model, expert(0, 2, part)) != bytes_of(model, expert(0, 0, part)));
  }
  double const usual = deviation(model.load<bfloat16>(expert(0, 0, "w2")));
  CHECK(deviation(model.load<bfloat16>(expert(1, 0, "w2"))) == doctest::Approx(usual / 1024).epsilon(0.1));
  CHECK(deviation(model.load<bfloat16>("model.layers.1.self_attn.o_proj.weight")) < usual / 500);
  CHECK(usual == doctest::Approx(1 / std::sqrt(48.0 * 6)).epsilon(0.1));
  CHECK(deviation(model.load<bfloat16>("model.norm.weight")) == 1);
}

TEST_CASE("a vocabulary too small for bytes has no tokenizer; tied embeddings have no head") {
  temporary_folder folder;
  synth_options options = small("mixtral");
  options.shape.vocabulary = 255;
  options.shape.tied_embeddings = true;
  synthesize(folder.path() / "m", options);
  checkpoint const model = checkpoint::open(folder.path() / "m");
  CHECK_FALSE(model.has_file("tokenizer.json"));
  CHECK(model.find("lm_head.weight") == nullptr);
}

TEST_CASE("refusals leave nothing behind") {
  temporary_folder folder;
  synth_options options = small("mixtral");
  options.identity_layers = {3};
  CHECK_THROWS_AS(synthesize(folder.path() / "m", options), usage_error);
  options = small("mixtral");
  options.duplicate_experts = 3;
  CHECK_THROWS_AS(synthesize(folder.path() / "m", options), usage_error);
  options = small("mixtral");
  CHECK_THROWS_AS(synthesize(folder.path() / "m", options, nullptr,
                             [](progress const& p) {
                               if (p.done > 0) throw interrupted();
                             }),
                  interrupted);
  CHECK(std::filesystem::is_empty(folder.path()));
  synthesize(folder.path() / "m", options);
  CHECK_THROWS_AS(synthesize(folder.path() / "m", options), input_error);
}

}  // namespace pipeline_synth_test
