#include <slimtrim/core/float16.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <doctest/doctest.h>

#include <cstdint>
#include <type_traits>
#include <utility>

namespace tensor_buffer_test {

using namespace slimtrim;

static_assert(!std::is_copy_constructible_v<buffer<float>> && std::is_nothrow_move_constructible_v<buffer<float>>);
static_assert(!std::is_copy_constructible_v<tensor<float, 2>> && std::is_nothrow_move_assignable_v<tensor<float, 2>>);
static_assert(!std::is_constructible_v<tensor<float, 2>, int> && std::is_constructible_v<tensor<float, 2>, int, long>);
static_assert(matrix_like<tensor<float, 2>> && matrix_like<tensor<float, 2> const&> && !vector_like<tensor<float, 2>>);
static_assert(vector_like<buffer<float>> && vector_like<buffer<std::int32_t>> && !matrix_like<buffer<float>>);

TEST_CASE("buffers are 64-byte aligned for any size") {
  for (index_t size : {1, 2, 3, 17, 4097}) {
    buffer<bfloat16> const x(size);
    CHECK(reinterpret_cast<std::uintptr_t>(x.data()) % 64 == 0);
    CHECK(x.size() == static_cast<std::size_t>(size));
  }
  CHECK(buffer<float>(0).empty());
  CHECK(buffer<float>(0).data() == nullptr);
}

TEST_CASE("a buffer can be filled, iterated and moved") {
  buffer<int> x(5, 7);
  int sum = 0;
  for (int v : x) sum += v;
  CHECK(sum == 35);
  int const* const storage = x.data();
  buffer<int> y(std::move(x));
  CHECK(y.data() == storage);
  buffer<int> z;
  z = std::move(y);
  CHECK(z.data() == storage);
  CHECK(z[4] == 7);
}

TEST_CASE("impossible sizes are refused before anything is allocated") {
  CHECK_THROWS_AS(buffer<float>(-1), error);
  CHECK_THROWS_AS(buffer<double>(PTRDIFF_MAX / 4), error);
  CHECK_THROWS_AS((tensor<float, 2>(-1, -1)), error);
  CHECK_THROWS_AS((tensor<float, 2>(index_t{1} << 40, index_t{1} << 40)), error);
}

TEST_CASE("a tensor is contiguous in C order and seen without a copy") {
  tensor<float, 3> x(2, 3, 4);
  x.fill(1.0F);
  x(1, 2, 3) = 9;
  CHECK(x.view().contiguous());
  CHECK(x.view().data[23] == 9);
  CHECK(as_tensor<3>(x).data == x.view().data);
  tensor<float, 3> const& reading = x;
  static_assert(std::is_same_v<decltype(as_tensor<3>(reading)), tensor_view<float const, 3>>);
  CHECK(reading(0, 0, 0) == 1);
  CHECK(x.extent(1) == 3);
}

TEST_CASE("moving a tensor leaves an empty one behind, cloning copies") {
  tensor<int, 2> x(2, 2);
  x.fill(3);
  auto copy = x.clone();
  copy(0, 0) = 4;
  CHECK(x(0, 0) == 3);
  int const* const storage = x.view().data;
  tensor<int, 2> y(std::move(x));
  CHECK(y.view().data == storage);
  CHECK(x.view().empty());  // NOLINT(bugprone-use-after-move): the state after a move is documented
  tensor<int, 2> z;
  z = std::move(y);
  CHECK(z(1, 1) == 3);
}

TEST_CASE("tensors without elements work") {
  tensor<float, 2> x(0, 5), y(5, 0);
  x.fill(1);
  CHECK(x.view().empty());
  CHECK(y.clone().extent(0) == 5);
}

}  // namespace tensor_buffer_test
