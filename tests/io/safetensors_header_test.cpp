#include "temporary_folder.hpp"

#include <slimtrim/io/safetensors_header.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace io_safetensors_header_test {

using namespace io_test;
using namespace slimtrim;

namespace {

std::string const two_tensors =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})";

/// The message of the refusal, or "" when the file is accepted. Refusals must blame the input.
std::string refusal(temporary_folder const& folder, std::string const& bytes, safetensors_read_options options = {}) {
  put(folder / "x.safetensors", bytes);
  try {
    (void)read_safetensors_header(input_file::open(folder / "x.safetensors"), options);
  } catch (input_error const& fault) {
    std::string const message = fault.what();
    CHECK(has(message, "x.safetensors: "));
    CHECK(!has(message, "\n"));
    return message;
  }
  return {};
}

std::string one(std::string const& fields) { return "{\"t\":{" + fields + "}}"; }

std::string shaped(std::string const& type, std::string const& shape, std::string const& offsets) {
  return one("\"dtype\":\"" + type + "\",\"shape\":[" + shape + "],\"data_offsets\":[" + offsets + "]");
}

}  // namespace

TEST_CASE("a valid header gives names, types, shapes and places") {
  temporary_folder const folder;
  put(folder / "x", raw_safetensors(two_tensors, 32));
  safetensors_header const header = read_safetensors_header(input_file::open(folder / "x"));
  REQUIRE(header.tensors.size() == 2);
  CHECK(header.tensors[0].name == "a");
  CHECK(header.tensors[0].type == dtype::float32);
  CHECK(header.tensors[0].shape == std::vector<index_t>{2, 3});
  CHECK(header.tensors[0].bytes == 24);
  CHECK(header.tensors[0].offset == 8 + two_tensors.size());
  CHECK(header.tensors[1].offset == 8 + two_tensors.size() + 24);
  CHECK(header.data_bytes == 32);
  REQUIRE(header.metadata.size() == 1);
  CHECK(header.metadata[0] == std::pair<std::string, std::string>("format", "pt"));
}

TEST_CASE("every prefix of a valid file is refused") {
  temporary_folder const folder;
  std::string const whole = raw_safetensors(two_tensors, 32);
  CHECK(refusal(folder, whole) == "");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CAPTURE(length);
    std::string const message = refusal(folder, whole.substr(0, length));
    CHECK(message != "");
    if (length > 8 && length < 8 + two_tensors.size()) CHECK(has(message, "bytes missing"));
    if (length >= 8 + two_tensors.size())
      CHECK(has(message, "(" + std::to_string(whole.size() - length) + " bytes missing)"));
  }
}

TEST_CASE("declared header lengths that cannot be are refused") {
  temporary_folder const folder;
  std::string const whole = raw_safetensors(two_tensors, 32);
  std::uint64_t const size = whole.size();
  for (std::uint64_t const length :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{7}, size - 8, size - 7, std::uint64_t{100'000'000},
        std::uint64_t{100'000'001}, std::uint64_t{1} << 31, std::uint64_t{1} << 63, ~std::uint64_t{0},
        ~std::uint64_t{0} - 7}) {
    CAPTURE(length);
    CHECK(refusal(folder, little_endian(length) + whole.substr(8)) != "");
  }
}

TEST_CASE("trailing bytes are refused unless lenient") {
  temporary_folder const folder;
  std::string const whole = raw_safetensors(two_tensors, 36);
  CHECK(has(refusal(folder, whole), "4 more bytes"));
  CHECK(refusal(folder, whole, {.lenient = true}) == "");
  CHECK(refusal(folder, raw_safetensors(two_tensors, 31), {.lenient = true}) != "");
}

TEST_CASE("shapes and offsets that do not agree or wrap are refused") {
  temporary_folder const folder;
  struct row {
    char const *type, *shape, *offsets;
  };
  for (row const& r : {row{"U8", "18446744073709551616", "0,0"},  // 2^64
                       row{"U8", "9223372036854775808", "0,0"},   // 2^63
                       row{"U8", "4294967296,4294967296", "0,0"},
                       row{"F32", "4294967296,4294967297", "0,4"},
                       row{"F32", "4194305,4194305,211106198978564", "0,16"},  // wraps to 4 elements
                       row{"F32", "65536,65536,65536,65536", "0,0"}, row{"F64", "2305843009213693952", "0,0"},
                       row{"F4", "4611686018427387904,4", "0,0"}, row{"F6_E2M3", "3074457345618258603,2", "0,0"},
                       row{"U8", "-1", "0,4"}, row{"U8", "-0", "0,0"}, row{"U8", "4.0", "0,4"},
                       row{"U8", "4e0", "0,4"}, row{"U8", "1e400", "0,4"}, row{"U8", "04", "0,4"},
                       row{"U8", "NaN", "0,4"}, row{"U8", "\"4\"", "0,4"}, row{"U8", "null", "0,4"},
                       row{"U8", "[4]", "0,4"}, row{"U8", "true", "0,4"}, row{"U8", "4,", "0,4"},
                       row{"U8", "4", "0"}, row{"U8", "4", ""}, row{"U8", "4", "0,4,4"}, row{"U8", "4", "0,4,4,8"},
                       row{"U8", "4", "-4,0"}, row{"U8", "4", "0,-4"}, row{"U8", "4", "0,4.0"},
                       row{"U8", "4", "4,0"}, row{"U8", "4", "1,5"}, row{"U8", "4", "0,3"}, row{"U8", "4", "0,5"},
                       row{"U8", "100", "18446744073709551566,50"}, row{"U8", "4", "0,18446744073709551616"},
                       row{"U8", "0", "0,4"}, row{"F32", "", "0,8"}, row{"F4", "3", "0,2"}, row{"F4", "3", "0,1"},
                       row{"F6_E3M2", "2", "0,2"}, row{"X9", "18446744073709551615,2", "0,4"},
                       row{"", "4", "0,4"}}) {
    CAPTURE(r.type);
    CAPTURE(r.shape);
    CAPTURE(r.offsets);
    CHECK(refusal(folder, raw_safetensors(shaped(r.type, r.shape, r.offsets), 4)) != "");
  }
  // The mirror images that are right.
  CHECK(refusal(folder, raw_safetensors(shaped("U8", "4", "0,4"), 4)) == "");
  CHECK(refusal(folder, raw_safetensors(shaped("F32", "", "0,4"), 4)) == "");
  CHECK(refusal(folder, raw_safetensors(shaped("F4", "2,4", "0,4"), 4)) == "");
  CHECK(refusal(folder, raw_safetensors(shaped("F6_E2M3", "4", "0,3"), 3)) == "");
  CHECK(refusal(folder, raw_safetensors(shaped("F32", "0,7", "0,0"), 0)) == "");
  CHECK(refusal(folder, raw_safetensors(shaped("X9", "5", "0,4"), 4)) == "");
  CHECK(refusal(folder, raw_safetensors("{}", 0)) == "");
}

TEST_CASE("holes, overlaps, double names and double fields are refused") {
  temporary_folder const folder;
  auto const pair = [](std::string const& first, std::string const& second, std::string const& name = "b") {
    return "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" + first + "]},\"" + name +
           "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" + second + "]}}";
  };
  CHECK(refusal(folder, raw_safetensors(pair("0,4", "4,8"), 8)) == "");
  CHECK(refusal(folder, raw_safetensors(pair("4,8", "0,4"), 8)) == "");
  CHECK(has(refusal(folder, raw_safetensors(pair("0,4", "5,9"), 9)), "tensor 'b'"));
  CHECK(refusal(folder, raw_safetensors(pair("0,4", "3,7"), 7)) != "");
  CHECK(refusal(folder, raw_safetensors(pair("0,4", "0,4"), 4)) != "");
  CHECK(refusal(folder, raw_safetensors(pair("4,8", "8,12"), 12)) != "");
  CHECK(has(refusal(folder, raw_safetensors(pair("0,4", "4,8", "a"), 8)), "found twice"));
  CHECK(has(refusal(folder, raw_safetensors(pair("0,4", "4,8", "\\u0061"), 8)), "found twice"));
  std::string const fields = R"("dtype":"U8","shape":[4],"data_offsets":[0,4])";
  CHECK(refusal(folder, raw_safetensors(one(fields), 4)) == "");
  CHECK(refusal(folder, raw_safetensors(one(fields + ",\"dtype\":\"U8\""), 4)) != "");
  CHECK(refusal(folder, raw_safetensors(one(fields + ",\"shape\":[4]"), 4)) != "");
  CHECK(refusal(folder, raw_safetensors(one(fields + ",\"strides\":[1]"), 4)) != "");
  CHECK(refusal(folder, raw_safetensors(one(R"("dtype":"U8","shape":[4])"), 4)) != "");
  CHECK(refusal(folder, raw_safetensors(one(""), 4)) != "");
  CHECK(refusal(folder, raw_safetensors("{\"t\":4}", 4)) != "");
  CHECK(refusal(folder, raw_safetensors("{\"t\":[]}", 4)) != "");
  // Tensors without bytes may share a place, also with the beginning of another one.
  std::string const empty = R"({"e":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                            R"("f":{"dtype":"U8","shape":[0,3],"data_offsets":[0,0]},)"
                            R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  CHECK(refusal(folder, raw_safetensors(empty, 4)) == "");
  std::string const inside = R"({"e":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},)"
                             R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})";
  CHECK(refusal(folder, raw_safetensors(inside, 4)) != "");
}

TEST_CASE("metadata must be strings, each key once") {
  temporary_folder const folder;
  CHECK(refusal(folder, raw_safetensors(R"({"__metadata__":{"a":"1","b":"2"}})", 0)) == "");
  for (char const* text : {R"({"__metadata__":{"a":1}})", R"({"__metadata__":{"a":null}})", R"({"__metadata__":[]})",
                           R"({"__metadata__":{"a":{}}})", R"({"__metadata__":"a"})", R"({"__metadata__":{"a":["b"]}})",
                           R"({"__metadata__":{"a":"1","a":"2"}})", R"({"__metadata__":{},"__metadata__":{}})"}) {
    CAPTURE(text);
    CHECK(refusal(folder, raw_safetensors(text, 0)) != "");
  }
}

TEST_CASE("text that is not one JSON object is refused") {
  temporary_folder const folder;
  std::string const good = two_tensors;
  CHECK(refusal(folder, raw_safetensors(good + "   ", 32)) == "");
  for (std::string const& text :
       {" " + good, "[" + good + "]", good + good, good + "x", good.substr(0, good.size() - 1), good + ",",
        "\xEF\xBB\xBF" + good, good + std::string(1, '\0'), good + std::string("\0junk", 5), std::string("{/**/}"),
        std::string("{'a':1}"), std::string("{\"a\"}"), std::string("{\"\xFF\":1}"), std::string("{\"\xC0\x80\":1}"),
        std::string("{\"\xED\xA0\x80\":1}"), std::string("{\"\\ud800\":1}"), std::string("{\"a\nb\":1}"),
        std::string("{,}"), std::string("{a")}) {
    CAPTURE(text);
    CHECK(refusal(folder, raw_safetensors(text, 32)) != "");
  }
}

TEST_CASE("names are kept apart to the last byte and escaped in messages") {
  temporary_folder const folder;
  std::string const nul = R"({"a\u0000b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                          R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";
  put(folder / "x", raw_safetensors(nul, 2));
  auto const header = read_safetensors_header(input_file::open(folder / "x"));
  REQUIRE(header.tensors.size() == 2);
  CHECK(header.tensors[0].name == "a");
  CHECK(header.tensors[1].name == std::string("a\0b", 3));
  std::string const message =
      refusal(folder, raw_safetensors(R"({"\u001b[31mred\n":{"dtype":"U8","shape":[9],"data_offsets":[0,1]}})", 1));
  CHECK(has(message, "\\x1b[31mred\\x0a"));
}

TEST_CASE("a git-LFS pointer is called by its name") {
  temporary_folder const folder;
  std::string const message =
      refusal(folder, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n");
  CHECK(has(message, "git-LFS pointer"));
  CHECK(has(message, "4976698672 bytes"));
}

TEST_CASE("deep nesting is refused without recursion") {
  temporary_folder const folder;
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  CHECK(refusal(folder, raw_safetensors(deep, 0)) != "");
  CHECK(refusal(folder, raw_safetensors("{\"t\":{\"shape\":" + std::string(1'000'000, '['), 0)) != "");
  CHECK(refusal(folder, raw_safetensors("{" + std::string(1'000'000, '['), 0)) != "");
}

TEST_CASE("one endless token does not fill memory") {
  temporary_folder const folder;
  CHECK(has(refusal(folder, raw_safetensors("{\"" + std::string(9'000'000, 'a'), 0)), "no token above"));
  CHECK(has(refusal(folder, raw_safetensors("{" + std::string(9'000'000, ' '), 0)), "no token above"));
  CHECK(has(refusal(folder, raw_safetensors("{\"t\":{\"shape\":[" + std::string(9'000'000, '1'), 0)), "no token above"));
}

TEST_CASE("a header of many names is read in near-linear time") {
  temporary_folder const folder;
  std::string header = "{";
  // Backwards, so that both sorts have work to do.
  for (int i = 100'000; i-- > 0;)
    header += "\"model.layers.0.mlp.experts." + std::to_string(i) + ".w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" +
              std::to_string(i) + "," + std::to_string(i + 1) + "]},";
  header.back() = '}';
  put(folder / "x", raw_safetensors(header, 100'000));
  auto const parsed = read_safetensors_header(input_file::open(folder / "x"));
  CHECK(parsed.tensors.size() == 100'000);
  CHECK(std::is_sorted(parsed.tensors.begin(), parsed.tensors.end(),
                       [](auto const& a, auto const& b) { return a.name < b.name; }));
}

TEST_CASE("small damage is refused or leaves a consistent header, never anything else") {
  temporary_folder const folder;
  std::string const whole = raw_safetensors(two_tensors, 32);
  std::mt19937 random(20240602);
  std::string const favourites = "{}[]\",:0129-.eE\\ \x01\xFF";
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = whole;
    for (auto edits = 1 + random() % 3; edits > 0; --edits) {
      std::size_t const at = random() % (8 + two_tensors.size());
      switch (random() % 4) {
        case 0:
          bytes[at] = favourites[random() % favourites.size()];
          break;
        case 1:
          bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ (1u << random() % 8));
          break;
        case 2:
          bytes.erase(at, 1 + random() % 4);
          break;
        default:
          bytes.insert(at, 1, favourites[random() % favourites.size()]);
      }
      if (bytes.size() < 8 + two_tensors.size() / 2) break;
    }
    // Half of the rounds keep the declared length true, so that the damage reaches the later checks.
    if (round % 2 == 0 && bytes.size() > 40) bytes.replace(0, 8, little_endian(bytes.size() - 40));
    put(folder / "x", bytes);
    try {
      auto const header = read_safetensors_header(input_file::open(folder / "x"));
      ++accepted;
      std::uint64_t sum = 0;
      for (tensor_info const& tensor : header.tensors) {
        sum += tensor.bytes;
        CHECK(tensor.offset + tensor.bytes <= bytes.size());
        if (tensor.type != dtype::unknown) CHECK(byte_count(tensor.type, tensor.shape) == tensor.bytes);
      }
      CHECK(header.data_offset + sum == bytes.size());
    } catch (input_error const&) {
    }
  }
  CHECK(accepted > 0);
  CHECK(accepted < 1500);
}

}  // namespace io_safetensors_header_test
