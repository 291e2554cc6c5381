#include <slimtrim/importance/random.hpp>

#include <doctest/doctest.h>

namespace importance_random_test {

using namespace slimtrim;

TEST_CASE("random scores depend on seed, layer and expert alone") {
  random_importance const score{.seed = 7};
  auto const a = score(3, 8), b = score(3, 4);
  CHECK(a.size() == 8);
  for (std::size_t j = 0; j < 4; ++j) CHECK(a[j] == b[j]);
  CHECK(a[0] == uniform_at(7, 3, 0));
  CHECK(a != score(4, 8));
  CHECK(a != random_importance{.seed = 8}(3, 8));
  for (double const s : a) CHECK((s >= 0 && s < 1));
}

}  // namespace importance_random_test
