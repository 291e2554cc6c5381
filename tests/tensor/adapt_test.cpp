// What is a tensor without any third-party library: ranges, C arrays, mdspan-like and user types.
#include <doctest/doctest.h>
#include <slimtrim/tensor/adapt.hpp>

#include <array>
#include <complex>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

using namespace slimtrim;

namespace {

// A column-major mdspan stand-in with the members of std::mdspan that matter.
template <class T, std::size_t Rank>
struct strided_span {
  T* pointer;
  std::array<std::size_t, Rank> sizes;
  std::array<std::size_t, Rank> steps;
  static constexpr std::size_t rank() { return Rank; }
  T* data_handle() const { return pointer; }
  std::size_t extent(std::size_t d) const { return sizes[d]; }
  std::size_t stride(std::size_t d) const { return steps[d]; }
};

// An engine's tensor: nothing about it is recognisable by structure.
struct engine_tensor {
  std::vector<float> storage;
  index_t row_count, column_count;
};
struct device_tensor {
  float* address;
  index_t length;
};
struct broken_traits {};
// What a lazy expression looks like: an extent and element access, but no storage.
struct lazy_sum {
  std::vector<float> const& a;
  std::size_t size() const { return a.size(); }
  float operator[](std::size_t i) const { return a[i] + 1; }
  float const* begin() const { return nullptr; }
};
// Has a pointer and a size, but says nothing about being a sequence: perhaps it has more dimensions.
struct opaque_blob {
  float* data() const { return nullptr; }
  std::size_t size() const { return 0; }
};

}  // namespace

namespace slimtrim {
inline namespace v0 {

template <>
struct tensor_traits<engine_tensor> {
  template <int Rank, class X>
    requires(Rank == 2)
  static auto view(X& x) {
    return tensor_view<std::remove_pointer_t<decltype(x.storage.data())>, 2>(x.storage.data(), x.row_count, x.column_count);
  }
};
template <>
struct tensor_traits<device_tensor> {
  template <int Rank>
    requires(Rank == 1)
  static auto view(device_tensor const& x) {
    return tensor_view<float, 1, space::device>(x.address, x.length);
  }
};
template <>
struct tensor_traits<broken_traits> {
  template <int Rank>
  static int view(broken_traits const&) {
    return 0;
  }
};

}  // namespace v0
}  // namespace slimtrim

// Accepted.
static_assert(vector_like<std::vector<float>> && vector_like<std::vector<double> const&> && vector_like<std::vector<bfloat16>&>);
static_assert(vector_like<std::span<float16 const>> && vector_like<std::array<float, 3>> && vector_like<float[4]>);
static_assert(vector_like<float const (&)[4]> && matrix_like<double[2][3]> && tensor_like<float[2][3][4], 3>);
static_assert(vector_like<std::vector<std::int32_t>> && vector_like<std::span<std::uint8_t const>>);
static_assert(vector_like<vector_view<float>> && matrix_like<matrix_view<bfloat16 const> const&>);
static_assert(vector_like<strided_span<float, 1>> && matrix_like<strided_span<float const, 2>>);
static_assert(matrix_like<engine_tensor> && matrix_like<engine_tensor const&> && vector_like<device_tensor>);
// Rejected: another rank.
static_assert(!matrix_like<std::vector<float>> && !vector_like<double[2][3]> && !matrix_like<float[4]>);
static_assert(!vector_like<matrix_view<float>> && !matrix_like<vector_view<float>> && !tensor_like<matrix_view<float>, 3>);
static_assert(!vector_like<strided_span<float, 2>> && !matrix_like<strided_span<float, 3>>);
static_assert(!vector_like<engine_tensor> && !matrix_like<device_tensor>);
// Rejected: no storage to look at, or not contiguous.
static_assert(!vector_like<lazy_sum> && !vector_like<std::deque<float>> && !vector_like<std::list<float>>);
static_assert(!vector_like<opaque_blob> && !vector_like<float*> && !vector_like<std::unique_ptr<float[]>>);
static_assert(!vector_like<std::vector<bool>> && !vector_like<float> && !vector_like<float[]>);
// Rejected: elements that are not numbers of ours.
static_assert(!vector_like<std::string> && !vector_like<std::vector<std::complex<float>>> && !vector_like<bool[3]>);
static_assert(!vector_like<std::vector<long double>> && !vector_like<std::vector<float*>> && !vector_like<char[3]>);
// Rejected: traits that do not make a view of that rank.
static_assert(!vector_like<broken_traits> && !matrix_like<broken_traits>);
// The memory space comes from the traits.
static_assert(decltype(as_vector(std::declval<device_tensor&>()))::memory == space::device);
// Constness follows the operand.
static_assert(std::is_same_v<decltype(as_vector(std::declval<std::vector<float>&>())), vector_view<float>>);
static_assert(std::is_same_v<decltype(as_vector(std::declval<std::vector<float> const&>())), vector_view<float const>>);
static_assert(std::is_same_v<decltype(as_vector(std::declval<std::span<float> const&>())), vector_view<float>>);
static_assert(std::is_same_v<decltype(as_const_vector(std::declval<std::vector<float>&>())), vector_view<float const>>);
static_assert(std::is_same_v<decltype(as_const_matrix(std::declval<double (&)[2][2]>())), matrix_view<double const>>);

TEST_CASE("ranges and C arrays are seen in place") {
  std::vector<float> v{1, 2, 3};
  CHECK(as_vector(v).data == v.data());
  CHECK(as_vector(v).extent(0) == 3);
  as_vector(v)(1) = 7;
  CHECK(v[1] == 7);
  std::span<float const> const part(v.data() + 1, 2);
  CHECK(as_vector(part)(0) == 7);
  std::array<double, 2> a{4, 5};
  CHECK(as_tensor<1>(a)(1) == 5);
  float c[3] = {1, 2, 3};
  CHECK(as_vector(c).data == c);
  CHECK(as_const_vector(c).extent(0) == 3);
  CHECK(as_vector(std::vector<float>{}).empty());
}

TEST_CASE("nested C arrays have their rank") {
  float m[2][3] = {{1, 2, 3}, {4, 5, 6}};
  auto const x = as_matrix(m);
  CHECK(x.extent(0) == 2);
  CHECK(x.extent(1) == 3);
  CHECK(&x(1, 2) == &m[1][2]);
  double const cube[2][2][2] = {{{0, 1}, {2, 3}}, {{4, 5}, {6, 7}}};
  CHECK(as_tensor<3>(cube)(1, 0, 1) == 5);
}

TEST_CASE("an mdspan keeps its strides") {
  std::vector<float> storage(12);
  for (std::size_t i = 0; i < 12; ++i) storage[i] = static_cast<float>(i);
  strided_span<float, 2> const columns_first{storage.data(), {3, 4}, {1, 3}};
  auto const x = as_matrix(columns_first);
  CHECK(x.extent(0) == 3);
  CHECK(x.stride(1) == 3);
  CHECK(x(2, 3) == 11);
  CHECK(x(1, 2) == 7);
}

TEST_CASE("an own tensor type joins through tensor_traits, const and not") {
  engine_tensor x{{1, 2, 3, 4, 5, 6}, 2, 3};
  as_matrix(x)(1, 1) = 50;
  engine_tensor const& reading = x;
  static_assert(std::is_same_v<decltype(as_matrix(reading)), matrix_view<float const>>);
  CHECK(as_matrix(reading)(1, 1) == 50);
}
