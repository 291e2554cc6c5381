// Text from the model itself: determined by the seed, near what the model expects of text.
#include <slimtrim/pipeline/self_text.hpp>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/io/checkpoint.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace pipeline_self_text_test {

using namespace slimtrim;

TEST_CASE("self text of the bundled model") {
  model const m = load_model(std::make_shared<checkpoint const>(
      checkpoint::open(SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral")));
  eigen_backend const backend;
  index_t reports = 0;
  std::vector<std::uint32_t> const text =
      sample_text(backend, m, 18, 6, 7, [&](progress const& p) { reports += p.total == 18 * 5; });
  REQUIRE(text.size() == 18 * 6);
  CHECK(reports == 18 * 5);
  for (std::uint32_t const id : text) CHECK(id < 2048);
  CHECK(sample_text(backend, m, 18, 6, 7) == text);
  CHECK(sample_text(backend, m, 18, 6, 8) != text);
  // A whole group of texts does not change when more are asked for.
  std::vector<std::uint32_t> const group = sample_text(backend, m, 16, 6, 7);
  CHECK(std::equal(group.begin(), group.end(), text.begin()));
  // First tokens are spread over the vocabulary.
  bool low = false, high = false;
  for (std::size_t w = 0; w < 18; ++w) (text[6 * w] < 1024 ? low : high) = true;
  CHECK((low && high));
}

}  // namespace pipeline_self_text_test
