// Fingerprints: a published value, independence of the cuts, and sensitivity.
#include <slimtrim/pipeline/fingerprint.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_fingerprint_test {

using namespace slimtrim;

TEST_CASE("the empty content has the hash that XXH3-128 defines") {
  CHECK(fingerprint_of(std::string_view()) == "99aa06d3014798d86001c324468d497f");
  CHECK(fingerprint_builder().text() == "99aa06d3014798d86001c324468d497f");
}

TEST_CASE("cuts do not matter, content does") {
  std::string const text(1000, 'x');
  fingerprint_builder pieces;
  for (std::size_t at = 0; at < text.size(); at += 7) pieces.add(std::string_view(text).substr(at, 7));
  CHECK(pieces.text() == fingerprint_of(text));
  std::string other = text;
  other[999] = 'y';
  CHECK(fingerprint_of(other) != fingerprint_of(text));
  CHECK(fingerprint_of(text + "x") != fingerprint_of(text));
}

TEST_CASE("integers are hashed as their bytes") {
  std::vector<std::uint32_t> const ids{1, 2, 70000};
  fingerprint_builder builder;
  builder.add(std::span(ids));
  CHECK(builder.text() == fingerprint_of(std::as_bytes(std::span(ids))));
}

}  // namespace pipeline_fingerprint_test
