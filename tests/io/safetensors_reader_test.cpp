#include "temporary_folder.hpp"

#include <slimtrim/io/safetensors_reader.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

namespace io_safetensors_reader_test {

using namespace io_test;
using namespace slimtrim;

namespace {
// The data begins at an odd multiple of 4 (and not of 8) or at an odd address, by the padding of the header.
std::string sample(std::size_t alignment_off) {
  std::string header = R"({"f":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                       R"("e":{"dtype":"U8","shape":[0],"data_offsets":[8,8]},)"
                       R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]}})";
  while (header.size() % 8 != alignment_off) header += ' ';
  std::string bytes = raw_safetensors(header, 0);
  float const values[2] = {1.5f, -2.0f};
  bytes.append(reinterpret_cast<char const*>(values), 8);
  bytes += std::string("\x80\x3f", 2);
  return bytes;
}
}  // namespace

TEST_CASE("bytes, elements and reads agree") {
  temporary_folder const folder;
  put(folder / "x", sample(0));
  safetensors_reader reader(folder / "x");
  safetensors_reader const moved = std::move(reader);
  CHECK(moved.tensors().size() == 3);
  CHECK(moved.find("nothing") == nullptr);
  CHECK_THROWS_AS((void)moved.at("nothing"), input_error);
  tensor_info const& f = moved.at("f");
  CHECK(moved.bytes(f).size() == 8);
  CHECK(moved.elements<float>(f)[0] == 1.5f);
  CHECK(moved.elements<float>(f)[1] == -2.0f);
  CHECK(moved.load<float>(f) == std::vector<float>{1.5f, -2.0f});
  CHECK(static_cast<float>(moved.elements<bfloat16>(moved.at("b"))[0]) == 1.0f);
  CHECK(moved.bytes(moved.at("e")).empty());
  CHECK(moved.elements<std::uint8_t>(moved.at("e")).empty());
  float second = 0;
  moved.read(f, 4, std::as_writable_bytes(std::span<float>(&second, 1)));
  CHECK(second == -2.0f);
  moved.release(f);
  CHECK(moved.elements<float>(f)[1] == -2.0f);
  CHECK(moved.data_bytes() == 10);
}

TEST_CASE("wrong type, misaligned data and reads outside are refused") {
  temporary_folder const folder;
  put(folder / "x", sample(1));
  safetensors_reader const reader(folder / "x");
  tensor_info const& f = reader.at("f");
  CHECK(has(message_of([&] { (void)reader.elements<float>(f); }), "aligned"));
  CHECK(reader.load<float>(f) == std::vector<float>{1.5f, -2.0f});
  CHECK(has(message_of([&] { (void)reader.load<std::int32_t>(f); }), "expected I32, found F32"));
  std::vector<std::byte> buffer(9);
  CHECK_THROWS_AS(reader.read(f, 0, buffer), error);
  CHECK_THROWS_AS(reader.read(f, ~std::uint64_t{0}, buffer), error);
}

TEST_CASE("a file that shrinks under the reader is an error, not a signal") {
  temporary_folder const folder;
  put(folder / "x", sample(0));
  safetensors_reader const reader(folder / "x");
  CHECK(reader.file().unchanged());
  std::filesystem::resize_file(folder / "x", 100);
  CHECK_FALSE(reader.file().unchanged());
  CHECK_THROWS_AS((void)reader.load<float>(reader.at("f")), input_error);
}

}  // namespace io_safetensors_reader_test
