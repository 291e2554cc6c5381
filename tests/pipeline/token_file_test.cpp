// Files of token ids: the three formats, their limits, and where messages point.
#include <slimtrim/pipeline/token_file.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_token_file_test {

using namespace slimtrim;

namespace {

using ids = std::vector<std::uint32_t>;

std::string npy(std::string header, std::string const& data, char version = 1) {
  header += "\n";
  std::string text("\x93NUMPY", 6);
  text += version;
  text += '\0';
  text += static_cast<char>(header.size() & 255);
  text += static_cast<char>(header.size() >> 8);
  if (version > 1) text += std::string(2, '\0');
  return text + header + data;
}

struct fixture {
  temporary_folder folder;
  ids read(std::string const& name, std::string const& bytes, std::uint64_t most = UINT64_MAX, index_t vocabulary = 100) {
    return read_token_file(input_file::open(folder.write(name, bytes)), most, vocabulary);
  }
  std::string refusal(std::string const& name, std::string const& bytes, index_t vocabulary = 100) {
    try {
      (void)read(name, bytes, UINT64_MAX, vocabulary);
    } catch (input_error const& failure) {
      return failure.what();
    }
    return "accepted";
  }
};

}  // namespace

TEST_CASE_FIXTURE(fixture, "little-endian words") {
  CHECK(read("a.u16", std::string("\x01\x00\x63\x00\x00\x00", 6)) == ids{1, 99, 0});
  CHECK(read("b.u32", std::string("\x01\x00\x00\x00\x02\x00\x00\x00", 8)) == ids{1, 2});
  CHECK(read("c.u16", std::string("\x01\x00\x63\x00\x00\x00", 6), 2) == ids{1, 99});
  CHECK(read("d.u16", "").empty());
  CHECK(read("e.u32", std::string("\x00\x00\x01\x00", 4), 9, 70000) == ids{65536});
}

TEST_CASE_FIXTURE(fixture, "more ids than one read takes") {
  std::string bytes;
  ids expected;
  for (std::uint32_t i = 0; i < 100000; ++i) {
    bytes += static_cast<char>(i & 63);
    bytes += '\0';
    expected.push_back(i & 63);
  }
  CHECK(read("a.u16", bytes) == expected);
}

TEST_CASE_FIXTURE(fixture, "NumPy arrays") {
  std::string const header = "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }";
  std::string const words("\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0", 16);
  CHECK(read("a.npy", npy(header, words)) == ids{5, 6});
  CHECK(read("b.npy", npy(header, words, 2)) == ids{5, 6});
  CHECK(read("c.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", std::string("\1\2\3\4\5\6", 6))) ==
        ids{1, 2, 3, 4, 5, 6});
  CHECK(read("d.npy", npy("{\"shape\": (4,), \"descr\": \"<u2\"}", std::string("\1\0\2\0\3\0\4\0", 8)), 3) == ids{1, 2, 3});
  CHECK(refusal("e.npy", npy("{'descr': '<f4', 'shape': (2,), }", std::string(8, '\0'))).find("found '<f4'") !=
        std::string::npos);
  CHECK(refusal("f.npy", npy("{'descr': '>u2', 'shape': (2,), }", std::string(4, '\0'))) != "accepted");
  CHECK(refusal("g.npy", npy("{'descr': '<u2', 'shape': (3,), }", std::string(4, '\0'))).find(
            "expected 3 ids of 2 bytes after the header, found 4 bytes") != std::string::npos);
  CHECK(refusal("h.npy", npy("{'descr': '<i2', 'shape': (1,), }", std::string(2, '\xff'))).find("a negative number") !=
        std::string::npos);
  CHECK(refusal("i.npy", npy("{'descr': '<u2', 'fortran_order': True, 'shape': (2, 2), }", std::string(8, '\0'))) !=
        "accepted");
  for (std::string const& broken :
       {std::string(), std::string("short"), std::string(20, 'x'), npy("", ""), npy("{'descr': '<u2'}", ""),
        npy("{'descr': '<u2', 'shape': (-1,)}", ""), npy("{'descr': '<u2', 'shape': (99999999999999999999,)}", ""),
        npy("{'descr': '<u2', 'shape': (4294967296, 4294967296)}", ""), npy("{'descr': '<u2', 'shape': 3}", ""),
        npy("{'descr': ", ""), npy(header, words).substr(0, 30), npy(header, words, 9)})
    CHECK(refusal("x.npy", broken) != "accepted");
}

TEST_CASE_FIXTURE(fixture, "every prefix of an array is refused or short") {
  std::string const whole = npy("{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }", std::string(8, '\1'));
  for (std::size_t size = 0; size < whole.size(); ++size) CHECK(refusal("p.npy", whole.substr(0, size)) != "accepted");
}

TEST_CASE_FIXTURE(fixture, "messages name file and position") {
  CHECK(refusal("v.u16", std::string("\x01\x00\x64\x00", 4)) ==
        (folder.path() / "v.u16").string() + ": id at position 1: expected below 100 (the vocabulary), found 100");
  CHECK(refusal("o.u16", "abc") == (folder.path() / "o.u16").string() + ": expected a multiple of 2 bytes, found 3");
}

}  // namespace pipeline_token_file_test
