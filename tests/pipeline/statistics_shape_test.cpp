// The shape of statistics, read back from files that were written for known shapes.
#include <slimtrim/pipeline/statistics_shape.hpp>

#include <slimtrim/pipeline/statistics_file.hpp>
#include <slimtrim/pipeline/synth_shape.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>

namespace pipeline_statistics_shape_test {

using namespace slimtrim;

TEST_CASE("layers, experts and widths come back") {
  temporary_folder folder;
  model_config const config = synth_config({.family = "deepseek", .layers = 12, .hidden = 16, .intermediate = 10,
                                            .experts = 3, .top_k = 2, .heads = 2});
  for (bool const tables : {true, false}) {
    statistics_tables wanted;
    wanted.outputs = wanted.neurons = tables;
    auto const path = folder.path() / (tables ? "with" : "without");
    save_statistics(empty_statistics(config, std::string(32, 'a'), 8, wanted), path);
    model_config const shape = statistics_shape(path);
    REQUIRE(shape.layer_count() == 12);
    CHECK(shape.layer(0).experts == 0);
    CHECK(shape.layer(11).experts == 3);
    CHECK(shape.hidden == (tables ? 16 : 0));
    CHECK(shape.layer(11).intermediate == (tables ? 10 : 0));
    model_statistics const read = load_statistics(path, shape);
    CHECK(read.layers.size() == 12);
    CHECK(read.model == std::string(32, 'a'));
  }
}

TEST_CASE("names of layers") {
  std::string_view name = "layers.12.router.count";
  CHECK(detail::take_layer(name) == 12);
  CHECK(name == "router.count");
  for (std::string_view other : {"blocks.cosine", "layers.", "layers.x.y", "layers.1", "layers.-1.y", "windows"})
    CHECK_FALSE(detail::take_layer(other));
}

TEST_CASE("other files are refused") {
  temporary_folder folder;
  auto const write = [&](std::string const& name, std::vector<tensor_description> const& tensors) {
    atomic_file file(folder.path() / name);
    safetensors_writer writer(file.open(), plan_safetensors(tensors));
    for (tensor_description const& tensor : tensors)
      writer.write(tensor.name, std::vector<std::byte>(static_cast<std::size_t>(*byte_count(tensor.type, tensor.shape))));
    writer.finish();
    file.commit();
    return folder.path() / name;
  };
  CHECK_THROWS_AS((void)statistics_shape(write("a", {{"w", dtype::uint8, {1}}})), input_error);
  CHECK_THROWS_AS((void)statistics_shape(write("b", {{"layers.1000000000.router.count", dtype::uint8, {1, 1}}})),
                  input_error);
  CHECK_THROWS_AS((void)statistics_shape(folder.write("c", "text")), input_error);
  CHECK_THROWS_AS((void)statistics_shape(folder.path() / "absent"), input_error);
}

}  // namespace pipeline_statistics_shape_test
