#include <slimtrim/model/workspace.hpp>

#include <doctest/doctest.h>

namespace model_workspace_test {

using namespace slimtrim;

TEST_CASE("scratch grows, is kept, and is shaped anew") {
  scratch_matrix<float> scratch;
  auto const large = scratch.shape(10, 20);
  CHECK(large.contiguous());
  CHECK(large.extent(1) == 20);
  large(9, 19) = 1;
  auto const small = scratch.shape(3, 4);
  CHECK(small.data == large.data);
  CHECK(small.stride(0) == 4);
  CHECK(scratch.shape(200, 1).data == large.data);
  CHECK(scratch.shape(0, 5).empty());
}

}  // namespace model_workspace_test
