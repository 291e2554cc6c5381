#include "temporary_folder.hpp"

#include <slimtrim/io/safetensors.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace io_safetensors_test {

using namespace io_test;
using namespace slimtrim;

TEST_CASE("what is written is what is read") {
  temporary_folder const folder;
  std::vector<float> const values{1, 2, 3, 4, 5, 6};
  {
    safetensors_writer writer(output_file::create(folder / "x"),
                              plan_safetensors({{.name = "w", .type = dtype::float32, .shape = {2, 3}}}));
    writer.write("w", std::as_bytes(std::span(values)));
    writer.finish();
  }
  safetensors_reader const reader(folder / "x");
  CHECK(reader.at("w").shape == std::vector<index_t>{2, 3});
  CHECK(reader.load<float>(reader.at("w")) == values);
}

}  // namespace io_safetensors_test
