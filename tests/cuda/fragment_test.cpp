#include <doctest/doctest.h>
#include <slimtrim/cuda/fragment.hpp>

namespace cuda_fragment_test {

using namespace slimtrim;

TEST_CASE("fragment: the lanes of a warp hold every element of a tile once") {
  int weights[16][16] = {}, activations[16][8] = {}, results[16][8] = {};
  for (int lane = 0; lane < 32; ++lane) {
    for (int reg = 0; reg < 4; ++reg)
      for (int i = 0; i < 2; ++i) {
        auto const at = cuda::weight_element(lane, reg, i);
        ++weights[at.row][at.column];
      }
    for (int reg = 0; reg < 2; ++reg)
      for (int i = 0; i < 2; ++i) {
        auto const at = cuda::activation_element(lane, reg, i);
        ++activations[at.row][at.column];
      }
    for (int i = 0; i < 4; ++i) {
      auto const at = cuda::result_element(lane, i);
      ++results[at.row][at.column];
    }
  }
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 16; ++c) CHECK(weights[r][c] == 1);
    for (int c = 0; c < 8; ++c) {
      CHECK(activations[r][c] == 1);
      CHECK(results[r][c] == 1);
    }
  }
}

TEST_CASE("fragment: figures of the PTX manual, by hand") {
  // Lane 5 is group 1, thread 1.
  CHECK(cuda::weight_element(5, 0, 1).row == 1);
  CHECK(cuda::weight_element(5, 0, 1).column == 3);
  CHECK(cuda::weight_element(5, 1, 0).row == 9);
  CHECK(cuda::weight_element(5, 2, 0).column == 10);
  CHECK(cuda::weight_element(5, 3, 1).row == 9);
  CHECK(cuda::weight_element(5, 3, 1).column == 11);
  CHECK(cuda::activation_element(5, 1, 0).row == 10);
  CHECK(cuda::activation_element(5, 1, 0).column == 1);
  CHECK(cuda::result_element(5, 3).row == 9);
  CHECK(cuda::result_element(5, 3).column == 3);
}

TEST_CASE("fragment: the order of columns is a permutation, its own inverse is right, and a lane's columns are 16 in a row") {
  int seen[64] = {};
  for (int step = 0; step < 4; ++step)
    for (int depth = 0; depth < 16; ++depth) {
      int const column = cuda::block_column(step, depth);
      REQUIRE(column >= 0);
      REQUIRE(column < 64);
      ++seen[column];
      auto const back = cuda::place_of_column(column);
      CHECK(back.step == step);
      CHECK(back.depth == depth);
    }
  for (int count : seen) CHECK(count == 1);
  for (int lane = 0; lane < 32; ++lane)
    for (int step = 0; step < 4; ++step)
      for (int reg = 0; reg < 2; ++reg)
        for (int i = 0; i < 2; ++i) {
          int const column = cuda::block_column(step, cuda::activation_element(lane, reg, i).row);
          CHECK(column == 16 * (lane % 4) + 4 * step + 2 * reg + i);
        }
}

}  // namespace cuda_fragment_test
