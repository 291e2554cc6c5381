// GGUF files: the bytes of a small one by hand, and what the reader finds in larger ones.
#include <slimtrim/io/gguf.hpp>

#include <io/temporary_folder.hpp>

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/output_file.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace io_gguf_writer_test {

namespace {

using namespace slimtrim;
using io_test::temporary_folder;

}  // namespace

TEST_CASE("the bytes of a small file") {
  temporary_folder folder;
  gguf_metadata const keys{
      {"a", std::uint32_t{7}}, {"s", std::string("xy")}, {"l", gguf_array(std::vector<std::int32_t>{1, -1})}};
  std::vector<float> const values{1.0F, 2.0F, 3.0F};
  std::vector<std::byte> const block(18, std::byte{0xAB});
  {
    gguf_writer writer(output_file::create(folder / "x"),
                       plan_gguf(keys, {{"t", gguf_type::float32, {3}}, {"u", gguf_type::q4_0, {1, 32}}}));
    writer.write("u", block);
    writer.write("t", std::as_bytes(std::span(values)));
    writer.finish();
  }
  auto const number = [](std::uint64_t value, int bytes) {
    std::string out;
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
    return out;
  };
  std::string expected = "GGUF" + number(3, 4) + number(2, 8) + number(3, 8);
  expected += number(1, 8) + "a" + number(4, 4) + number(7, 4);
  expected += number(1, 8) + "s" + number(8, 4) + number(2, 8) + "xy";
  expected += number(1, 8) + "l" + number(9, 4) + number(5, 4) + number(2, 8) + number(1, 4) + number(0xFFFFFFFF, 4);
  expected += number(1, 8) + "t" + number(1, 4) + number(3, 8) + number(0, 4) + number(0, 8);
  // Extents from the innermost; the second tensor begins at the next multiple of 32.
  expected += number(1, 8) + "u" + number(2, 4) + number(32, 8) + number(1, 8) + number(2, 4) + number(32, 8);
  expected.resize((expected.size() + 31) / 32 * 32, '\0');
  expected += number(0x3F800000, 4) + number(0x40000000, 4) + number(0x40400000, 4) + std::string(20, '\0');
  expected += std::string(18, '\xAB') + std::string(14, '\0');
  CHECK(io_test::get(folder / "x") == expected);
}

TEST_CASE("every kind of value and every type comes back") {
  temporary_folder folder;
  gguf_metadata const keys{{"u8", std::uint8_t{200}},
                           {"i8", std::int8_t{-3}},
                           {"u16", std::uint16_t{60000}},
                           {"i16", std::int16_t{-300}},
                           {"u32", std::uint32_t{4000000000U}},
                           {"i32", std::int32_t{-70000}},
                           {"f32", 1.5F},
                           {"yes", true},
                           {"no", false},
                           {"text", std::string("\xC3\xA9\0z", 4)},
                           {"u64", std::uint64_t{1} << 60},
                           {"i64", -(std::int64_t{1} << 40)},
                           {"f64", 0.1},
                           {"words", gguf_array(std::vector<std::string>{"", "b", std::string(70000, 'x')})},
                           {"flags", gguf_array(std::vector<bool>{true, false, true})},
                           {"reals", gguf_array(std::vector<float>{0.5F, -2.0F})},
                           {"none", gguf_array(std::vector<std::uint64_t>{})}};
  std::vector<gguf_tensor> const tensors{{"a", gguf_type::bfloat16, {2, 3, 5}},
                                         {"b", gguf_type::q8_0, {3, 64}},
                                         {"empty", gguf_type::float16, {0, 4}},
                                         {"c", gguf_type::float16, {7}}};
  planned_layout const layout = plan_gguf(keys, tensors);
  {
    gguf_writer writer(output_file::create(folder / "x"), layout);
    for (tensor_info const& tensor : layout.tensors)
      for (std::uint64_t at = 0; at < tensor.bytes; ++at) {
        std::byte const one[1] = {static_cast<std::byte>(at)};
        writer.write(tensor.name, at, one);
      }
    writer.finish();
  }
  gguf_header const header = read_gguf_header(input_file::open(folder / "x"));
  CHECK(header.metadata == keys);
  CHECK(header.alignment == 32);
  REQUIRE(header.tensors.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(header.tensors[i].name == tensors[i].name);
    CHECK(header.tensors[i].shape == tensors[i].shape);
    CHECK(header.tensors[i].offset % 32 == 0);
    CHECK(header.tensors[i].offset == layout.tensors[i].offset);
    CHECK(header.tensors[i].bytes == layout.tensors[i].bytes);
  }
  CHECK(header.find("b")->type_name == "Q8_0");
  CHECK(header.find("b")->bytes == 3 * 2 * 34);
  CHECK(header.find("absent") == nullptr);
  CHECK(*find_gguf_value<std::uint32_t>(header.metadata, "u32") == 4000000000U);
  CHECK(find_gguf_value<std::uint32_t>(header.metadata, "i32") == nullptr);
  CHECK(find_gguf_array<std::string>(header.metadata, "words")->size() == 3);
  CHECK(find_gguf_array<float>(header.metadata, "words") == nullptr);
}

TEST_CASE("plans that no file can hold") {
  using tensors = std::vector<gguf_tensor>;
  CHECK(io_test::message_of([] {
          (void)plan_gguf({}, tensors{{std::string(63, 'n'), gguf_type::float32, {1}}});
        }).empty());
  CHECK(io_test::has(io_test::message_of([] {
                       (void)plan_gguf({}, tensors{{std::string(64, 'n'), gguf_type::float32, {1}}});
                     }),
                     "63 bytes"));
  CHECK_FALSE(io_test::message_of([] { (void)plan_gguf({}, tensors{{"", gguf_type::float32, {1}}}); }).empty());
  CHECK_FALSE(io_test::message_of([] { (void)plan_gguf({}, tensors{{"a", gguf_type::float32, {}}}); }).empty());
  CHECK_FALSE(io_test::message_of([] {
                (void)plan_gguf({}, tensors{{"a", gguf_type::float32, {1, 1, 1, 1, 1}}});
              }).empty());
  CHECK(io_test::has(io_test::message_of([] {
                       (void)plan_gguf({}, tensors{{"a", gguf_type::q4_0, {4, 33}}});
                     }),
                     "blocks of 32"));
  CHECK_FALSE(io_test::message_of([] {
                (void)plan_gguf({}, tensors{{"a", gguf_type::float32, {index_t{1} << 40, index_t{1} << 40}}});
              }).empty());
  CHECK(io_test::has(io_test::message_of([] {
                       (void)plan_gguf({}, tensors{{"a", gguf_type::float32, {1}}, {"a", gguf_type::float16, {1}}});
                     }),
                     "twice"));
  CHECK(io_test::has(io_test::message_of([] { (void)plan_gguf({{"k", true}, {"k", false}}, {}); }), "key 'k'"));
}

}  // namespace io_gguf_writer_test
