#include <slimtrim/backend/reference.hpp>
#include <slimtrim/trim/novice.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace trim_novice_test {

using namespace slimtrim;

TEST_CASE("the constant is the mean output; an expert without tokens becomes zero") {
  std::vector<float> const f{1, 5, 3, 6};
  expert_outputs outputs(4, 2);
  outputs.add(reference_backend{}, 1, matrix_view<float const>(f.data(), 2, 2));
  outputs.commit_window();
  auto const d = replace_by_novices({7, {0}}, {0, 1, 3}, outputs);
  CHECK(d.experts.layer == 7);
  CHECK(d.novices.size() == 2);
  CHECK(d.novices[0].expert == 1);
  CHECK(d.novices[0].constant == std::vector<float>{2, 5.5F});
  CHECK(d.novices[1].expert == 3);
  CHECK(d.novices[1].constant == std::vector<float>{0, 0});
  CHECK_THROWS_AS(replace_by_novices({7, {2}}, {0, 1, 3}, outputs), error);
  CHECK_THROWS_AS(replace_by_novices({7, {0}}, {0, 4}, outputs), error);
}

}  // namespace trim_novice_test
