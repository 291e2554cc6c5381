// Opening a folder as a model: plain and packed weights behind one source, refusals before any weight is read.
#include <slimtrim/pipeline/open_model.hpp>

#include <slimtrim/io/json_fields.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <string>

namespace pipeline_open_model_test {

using namespace slimtrim;

namespace {

std::string const bundled = SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral";

// What opening says after `change` edited config.json.
std::string opened_with(std::function<void(ordered_json&)> const& change) {
  temporary_folder const folder;
  std::filesystem::create_directories(folder.path() / "m");
  std::filesystem::copy_file(bundled + "/model.safetensors", folder.path() / "m/model.safetensors");
  ordered_json config = read_json_file(bundled + "/config.json");
  change(config);
  folder.write("m/config.json", config.dump());
  try {
    static_cast<void>(open_model(folder.path() / "m"));
  } catch (input_error const& e) {
    return e.what();
  } catch (std::exception const& e) {
    return std::string("another error: ") + e.what();
  }
  return "opened";
}

bool has(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a plain model") {
  opened_model const model = open_model(bundled);
  CHECK_FALSE(model.format);
  CHECK(model.config.layer_count() == 8);
  CHECK(model.config.layer(5).experts == 8);
  CHECK(model.weights->matrix({module_role::up, 7, 7}).rows() == 256);
  CHECK(model.weights->vector({module_role::final_norm}).size() == 128);
}

TEST_CASE("formats by name") {
  for (std::string const name : {"compressed-tensors", "awq", "gptq"}) {
    auto const format = find_packed_format(name);
    REQUIRE(format);
    CHECK(format->method() == name);
  }
  CHECK_FALSE(find_packed_format("gguf"));
}

TEST_CASE("configurations that do not fit the tensors or name unknown formats") {
  CHECK(opened_with([](ordered_json&) {}) == "opened");
  CHECK(opened_with([](ordered_json& c) { c["quantization_config"] = nullptr; }) == "opened");
  CHECK(has(opened_with([](ordered_json& c) { c["num_local_experts"] = 9; }), "block_sparse_moe"));
  CHECK(has(opened_with([](ordered_json& c) { c["num_hidden_layers"] = 9; }), "model.layers.8."));
  CHECK(has(opened_with([](ordered_json& c) { c["vocab_size"] = 2049; }), "tensor '"));
  CHECK(has(opened_with([](ordered_json& c) { c.erase("hidden_size"); }), "config.json: field 'hidden_size'"));
  CHECK(has(opened_with([](ordered_json& c) { c["quantization_config"] = {{"quant_method", "bitsandbytes"}}; }),
            "field 'quantization_config.quant_method': expected compressed-tensors, awq, gptq or fp8, found bitsandbytes"));
  CHECK(has(opened_with([](ordered_json& c) { c["quantization_config"] = {{"bits", 4}}; }), "field 'quant_method'"));
  CHECK(has(opened_with([](ordered_json& c) { c["quantization_config"] = {{"quant_method", "compressed-tensors"}, {"format", "dense"}}; }),
            "field 'quantization_config.format': expected \"pack-quantized\""));
  CHECK(has(opened_with([](ordered_json& c) { c["quantization_config"] = 7; }), "quant_method"));
  // Packed by name, plain in fact: nothing is missing.
  CHECK(opened_with([](ordered_json& c) { c["quantization_config"] = {{"quant_method", "gptq"}, {"checkpoint_format", "gptq_v2"}}; }) == "opened");
}

TEST_CASE("folders that are no model") {
  temporary_folder const folder;
  CHECK_THROWS_AS(static_cast<void>(open_model(folder.path() / "none")), error);
  CHECK_THROWS_AS(static_cast<void>(open_model(folder.path())), error);
}

}  // namespace pipeline_open_model_test
