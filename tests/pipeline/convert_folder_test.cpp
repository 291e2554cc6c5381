// Expanding packed models, and changing their format without changing a weight.
#include <slimtrim/pipeline/convert_folder.hpp>

#include <pipeline/support.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_convert_folder_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

// All weights of two models as floats: `rounded` after rounding the first to bfloat16.
bool same_weights(opened_model const& a, opened_model const& b, bool rounded) {
  bool same = true;
  for_each_module(a.config, [&](module_id id) {
    if (!is_matrix_role(id.role)) {
      same = same && a.weights->vector(id) == b.weights->vector(id);
      return;
    }
    tensor<float, 2> const x = expand(a.weights->matrix(id).view), y = expand(b.weights->matrix(id).view);
    for (index_t i = 0; i < x.view().size(); ++i) {
      float const value = rounded ? static_cast<float>(bfloat16(x.view().data[i])) : x.view().data[i];
      same = same && value == y.view().data[i];
    }
  });
  return same;
}

std::string convert(opened_model const& model, std::filesystem::path const& out, std::string const& format) {
  return message_of<error>([&] { (void)convert_folder(model, out, {.format = format}); });
}

}  // namespace

TEST_CASE("packed weights expand to bfloat16") {
  temporary_folder const folder;
  for (char const* const recipe : {"rtn:3g64", "rtn:4g32z", "rtn:8g128"}) {
    std::string const name = std::string(recipe).substr(4);
    compress_model(bundled(), slim_plan(bundled().config, recipe), folder.path() / name);
    opened_model const packed = open_model(folder.path() / name);
    auto const result = convert_folder(packed, folder.path() / (name + "b"), {});
    opened_model const dense = open_model(folder.path() / (name + "b"));
    CHECK(dense.format == nullptr);
    CHECK(result.expanded == 8 * (4 + 3 * 8));
    CHECK(result.bytes_out == dense.files->file_bytes());
    CHECK(same_weights(packed, dense, true));
    CHECK(dense.files->config()["torch_dtype"] == "bfloat16");
    CHECK_FALSE(dense.files->config().contains("quantization_config"));
    for (tensor_info const& tensor : dense.files->tensors()) CHECK(tensor.type == dtype::bfloat16);
    CHECK(dense.files->other_files() == packed.files->other_files());
  }
}

TEST_CASE("a dense model in bfloat16 is copied byte for byte") {
  temporary_folder const folder;
  REQUIRE(convert(bundled(), folder.path() / "m", "bf16") == "nothing thrown");
  opened_model const copy = open_model(folder.path() / "m");
  CHECK(copy.files->config() == bundled().files->config());
  REQUIRE(copy.files->tensors().size() == bundled().files->tensors().size());
  for (tensor_info const& tensor : copy.files->tensors()) {
    auto const a = copy.files->bytes(tensor), b = bundled().files->bytes(tensor.name);
    CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  }
}

TEST_CASE("another packed format holds the same weights") {
  temporary_folder const folder;
  for (auto const& [from, recipe] : {std::pair{"gptq", "rtn:4g32"}, std::pair{"awq", "rtn:4g32z"}}) {
    compress_model(bundled(), slim_plan(bundled().config, recipe), folder.path() / from, {.format = from});
    opened_model const packed = open_model(folder.path() / from);
    for (char const* const to : {"compressed-tensors", "awq", "gptq"}) {
      CAPTURE(from);
      CAPTURE(to);
      std::string const name = std::string(from) + "-" + to;
      std::string const said = convert(packed, folder.path() / name, to);
      if (std::string(to) == "gptq" && std::string(from) == "awq") {
        CHECK(has(said, "has zero points"));
        continue;
      }
      REQUIRE(said == "nothing thrown");
      opened_model const changed = open_model(folder.path() / name);
      CHECK(changed.format->method() == to);
      CHECK(same_weights(packed, changed, false));
    }
  }
  // Symmetric weights come out of gptq without zero points.
  opened_model const symmetric = open_model(folder.path() / "gptq-compressed-tensors");
  CHECK(symmetric.files->find("model.layers.0.self_attn.q_proj.weight_zero_point") == nullptr);
  CHECK(open_model(folder.path() / "awq-compressed-tensors")
            .files->find("model.layers.0.self_attn.q_proj.weight_zero_point") != nullptr);
}

TEST_CASE("groups that are as wide as some of the matrices stay groups") {
  // 128 columns in most matrices, 256 in the experts' last ones.
  temporary_folder const folder;
  compress_model(bundled(), slim_plan(bundled().config, "rtn:4g128"), folder.path() / "a");
  for (std::string const format : {"awq", "gptq", "compressed-tensors"}) {
    CAPTURE(format);
    if (format != "compressed-tensors")
      compress_model(bundled(), slim_plan(bundled().config, "rtn:4g128"), folder.path() / format, {.format = format});
    opened_model const from = open_model(folder.path() / (format == "compressed-tensors" ? "a" : format));
    REQUIRE(convert(from, folder.path() / (format + "2"), "compressed-tensors") == "nothing thrown");
    opened_model const back = open_model(folder.path() / (format + "2"));
    CHECK(same_weights(from, back, false));
    CHECK(back.files->config()["quantization_config"]["config_groups"].size() == 1);
    CHECK(back.files->config()["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] == 128);
  }
}

TEST_CASE("what is refused") {
  temporary_folder const folder;
  CHECK(has(convert(bundled(), folder.path() / "x", "gptq"), "is not packed; how to pack it is a recipe's decision"));
  CHECK(has(convert(bundled(), folder.path() / "x", "zip"), "--format: expected bf16"));
  compress_model(bundled(), slim_plan(bundled().config, "rtn:3g64"), folder.path() / "three");
  CHECK(has(convert(open_model(folder.path() / "three"), folder.path() / "x", "awq"), "the awq format carries 4 bits"));
  CHECK(
      has(convert(open_model(folder.path() / "three"), folder.path() / "three" / "x", "bf16"), "outside of the input"));
  CHECK(
      has(convert(open_model(folder.path() / "three"), folder.path() / "three", "bf16"), "expected not to exist yet"));
  copy_bundled(folder.path() / "m");
  poke(folder.path() / "m", "lm_head.weight", 129, 0x7f80);
  // Nothing has to be changed: bytes are copied, whatever they say.
  CHECK(convert(open_model(folder.path() / "m"), folder.path() / "y", "bf16") == "nothing thrown");
  CHECK(!std::filesystem::exists(folder.path() / "x"));
}

}  // namespace pipeline_convert_folder_test
