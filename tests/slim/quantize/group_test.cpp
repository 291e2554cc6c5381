#include <slimtrim/slim/quantize/group.hpp>

#include <doctest/doctest.h>

namespace slim_quantize_group_test {

using namespace slimtrim;

TEST_CASE("shapes") {
  grouping const g{group_kind::group, 5};
  CHECK(g.groups(12) == 3);  // 5 + 5 + 2
  CHECK(grouping{group_kind::channel}.groups(12) == 1);
  CHECK(grouping{group_kind::tensor}.block_rows(7) == 7);
  CHECK_THROWS_AS((grouping{group_kind::group, 0}.check()), error);
}

}  // namespace slim_quantize_group_test
