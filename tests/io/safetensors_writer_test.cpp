#include "temporary_folder.hpp"

#include <slimtrim/io/safetensors_reader.hpp>
#include <slimtrim/io/safetensors_writer.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace io_safetensors_writer_test {

using namespace io_test;
using namespace slimtrim;

TEST_CASE("the layout is that of the reference library") {
  auto const layout = plan_safetensors({{.name = "b", .type = dtype::bfloat16, .shape = {2}},
                                        {.name = "a", .type = dtype::bfloat16, .shape = {1, 3}},
                                        {.name = "i", .type = dtype::int64, .shape = {}},
                                        {.name = "z", .type = dtype::uint8, .shape = {0}}});
  std::string const expected =
      R"({"__metadata__":{"format":"pt"},"i":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[14,18]},)"
      R"("z":{"dtype":"U8","shape":[0],"data_offsets":[18,18]}})";
  std::string const text = layout.header.substr(8);
  CHECK(layout.header.size() % 8 == 0);
  CHECK(layout.header.substr(0, 8) == little_endian(text.size()));
  CHECK(text.substr(0, expected.size()) == expected);
  CHECK(text.find_first_not_of(' ', expected.size()) == std::string::npos);
  CHECK(text.size() - expected.size() < 8);
  CHECK(layout.file_bytes == layout.header.size() + 18);
}

TEST_CASE("a plan that the format cannot hold is refused") {
  using plan = std::vector<tensor_description>;
  CHECK_THROWS_AS((void)plan_safetensors(plan{{.name = "a", .type = dtype::int8, .shape = {1}},
                                              {.name = "a", .type = dtype::uint8, .shape = {1}}}),
                  error);
  CHECK_THROWS_AS((void)plan_safetensors(plan{{.name = "a", .type = dtype::int8, .shape = {-1}}}), error);
  CHECK_THROWS_AS((void)plan_safetensors(plan{{.name = "a", .type = dtype::float4, .shape = {3}}}), error);
  CHECK_THROWS_AS((void)plan_safetensors(plan{{.name = "__metadata__", .type = dtype::int8, .shape = {3}}}), error);
  CHECK_THROWS_AS((void)plan_safetensors(plan{{.name = "\xFF", .type = dtype::int8, .shape = {3}}}), error);
  CHECK_THROWS_AS((void)plan_safetensors(plan{{.name = "a", .type = dtype::unknown, .shape = {3}}}), error);
  CHECK_THROWS_AS((void)plan_safetensors(plan{{.name = "a", .type = dtype::int8, .shape = {1}, .bytes = 2}}), error);
  index_t const large = index_t{1} << 62;
  CHECK_THROWS_AS((void)plan_safetensors(plan{{.name = "a", .type = dtype::int8, .shape = {large}},
                                              {.name = "b", .type = dtype::int8, .shape = {large}}}),
                  error);
}

TEST_CASE("pieces in any order, from several threads, give the same file") {
  temporary_folder const folder;
  std::mt19937 random(7);
  std::vector<std::uint8_t> first(10'000), second(777);
  for (auto& value : first) value = static_cast<std::uint8_t>(random());
  for (auto& value : second) value = static_cast<std::uint8_t>(random());
  std::vector<tensor_description> const plan{{.name = "one", .type = dtype::uint8, .shape = {100, 100}},
                                             {.name = "two", .type = dtype::uint8, .shape = {777}},
                                             {.name = "no\n\"ne", .type = dtype::float32, .shape = {0}},
                                             {.name = "odd", .type = dtype::unknown, .shape = {3}, .type_name = "F3",
                                              .bytes = 2}};
  std::vector<std::byte> const odd{std::byte{1}, std::byte{2}};
  {
    safetensors_writer writer(output_file::create(folder / "a"), plan_safetensors(plan, {{"who", "test"}}));
    writer.write("one", std::as_bytes(std::span(first)));
    writer.write("two", std::as_bytes(std::span(second)));
    writer.write("odd", odd);
    CHECK(writer.complete());
    writer.finish();
  }
  {
    safetensors_writer writer(output_file::create(folder / "b"), plan_safetensors(plan, {{"who", "test"}}));
    writer.write("odd", 1, std::span(odd).subspan(1));
    std::vector<std::size_t> pieces(100);
    for (std::size_t i = 0; i < 100; ++i) pieces[i] = i;
    std::shuffle(pieces.begin(), pieces.end(), random);
    auto const write_half = [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i)
        writer.write("one", 100 * pieces[i], std::as_bytes(std::span(first)).subspan(100 * pieces[i], 100));
    };
    std::thread other([&] { write_half(0, 50); });
    write_half(50, 100);
    other.join();
    CHECK_FALSE(writer.complete());
    CHECK(has(message_of([&] { writer.finish(); }), "expected"));
    writer.write("two", 0, std::as_bytes(std::span(second)));
    writer.write("odd", 0, std::span(odd).first(1));
    writer.finish();
  }
  CHECK(get(folder / "a") == get(folder / "b"));
  safetensors_reader const reader(folder / "a");
  CHECK(reader.load<std::uint8_t>(reader.at("one")) == first);
  CHECK(reader.load<std::uint8_t>(reader.at("two")) == second);
  CHECK(reader.at("odd").type == dtype::unknown);
  CHECK(reader.at("odd").type_name == "F3");
  CHECK(reader.metadata() == safetensors_metadata{{"format", "pt"}, {"who", "test"}});
}

TEST_CASE("unplanned, outside, double and missing bytes are refused") {
  temporary_folder const folder;
  safetensors_writer writer(output_file::create(folder / "a"),
                            plan_safetensors({{.name = "t", .type = dtype::uint8, .shape = {8}}}));
  std::vector<std::byte> const four(4), nine(9);
  CHECK_THROWS_AS(writer.write("u", four), error);
  CHECK_THROWS_AS(writer.write("t", four), error);
  CHECK_THROWS_AS(writer.write("t", 0, nine), error);
  CHECK_THROWS_AS(writer.write("t", ~std::uint64_t{0}, four), error);
  writer.write("t", 2, four);
  for (std::uint64_t const offset : {0u, 1u, 2u, 3u, 4u})
    if (offset != 4) CHECK(has(message_of([&] { writer.write("t", offset, four); }), "written twice"));
  CHECK(has(message_of([&] { writer.finish(); }), "tensor 't': expected 8 bytes written, found 4"));
  writer.write("t", 0, std::span(four).first(2));
  writer.write("t", 6, std::span(four).first(2));
  writer.finish();
}

TEST_CASE("a full disk is a system failure that names the file") {
  // /dev/full accepts an open and fails every write with ENOSPC.
  if (!std::filesystem::exists("/dev/full")) return;
  std::string const message = message_of([] {
    safetensors_writer writer(output_file::reopen("/dev/full"),
                              plan_safetensors({{.name = "t", .type = dtype::uint8, .shape = {8}}}));
  });
  CHECK(has(message, "/dev/full"));
}

TEST_CASE("rewriting a file of the reference library gives the same bytes") {
  std::filesystem::path const path =
      std::filesystem::path(SLIMTRIM_SHARED_DATA) / "tiny-mixtral-wikitext2/model.safetensors";
  if (!std::filesystem::exists(path)) {
    MESSAGE("skipped: the shared model is not here");
    return;
  }
  temporary_folder const folder;
  safetensors_reader const reader(path);
  std::vector<tensor_description> const plan(reader.tensors().begin(), reader.tensors().end());
  safetensors_writer writer(output_file::create(folder / "copy"), plan_safetensors(plan, reader.metadata()));
  for (tensor_info const& tensor : reader.tensors()) writer.write(tensor.name, reader.bytes(tensor));
  writer.finish();
  CHECK(get(folder / "copy") == get(path));
}

}  // namespace io_safetensors_writer_test
