// What is a tensor? Anything that `as_tensor<Rank>(x)` can turn into a view without copying.
//
// | type                              | recognised by                                             |
// |-----------------------------------|-----------------------------------------------------------|
// | tensor_view                       | itself                                                    |
// | anything of the user's            | a specialisation of tensor_traits                         |
// | Eigen matrices, vectors, maps     | data, rows, cols, rowStride, colStride                    |
// | xtensor containers and views      | data, data_offset, shape, strides, dimension              |
// | mdspan-like                       | data_handle, extent, stride, rank                         |
// | span, vector, array               | data, size, begin: a contiguous range (rank 1)            |
// | C arrays                          | themselves, one dimension a rank                          |
//
// Elements are real scalars or, for indices and codes, integers; bool, characters and complex numbers are not.
//
// Third-party headers are not included: types are known by their structure, so a moved header cannot break us.
// Lazy expressions have no addressable storage, satisfy none of these, and are rejected at compile time rather than
// evaluated into a hidden copy.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/numeric.hpp>
#include <slimtrim/tensor/subview.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace slimtrim {
inline namespace v0 {

/// Customisation point. Specialise for an own tensor type X (without cv and reference) and give it
/// `template <int Rank> static tensor_view<T, Rank, Space> view(X& x)` and the same for `X const&`.
template <class X>
struct tensor_traits {};

namespace detail {

template <class T, class... Others>
inline constexpr bool is_any_of = (std::is_same_v<T, Others> || ...);

// What a structurally recognised tensor may hold.
template <class T>
concept tensor_element = real_scalar<std::remove_cv_t<T>> ||
                         (std::integral<T> && !is_any_of<std::remove_cv_t<T>, bool, char, wchar_t, char8_t, char16_t, char32_t>);

template <class P>
using pointee = std::remove_pointer_t<P>;

template <class P>
concept element_pointer = std::is_pointer_v<P> && tensor_element<pointee<P>>;

template <class X, int Rank>
inline constexpr bool is_view_of_rank = false;
template <class T, int Rank, space Space>
inline constexpr bool is_view_of_rank<tensor_view<T, Rank, Space>, Rank> = true;

template <class X, int Rank>
concept has_tensor_traits =
    requires(X& x) { requires is_view_of_rank<decltype(tensor_traits<std::remove_cv_t<X>>::template view<Rank>(x)), Rank>; };

template <class X>
concept eigen_like = requires(X& x) {
  requires element_pointer<decltype(x.data())>;
  { x.rows() } -> std::convertible_to<index_t>;
  { x.cols() } -> std::convertible_to<index_t>;
  { x.rowStride() } -> std::convertible_to<index_t>;
  { x.colStride() } -> std::convertible_to<index_t>;
  { X::IsVectorAtCompileTime };
};

template <class X>
concept xtensor_like = requires(X& x) {
  requires element_pointer<decltype(x.data())>;
  { x.data_offset() } -> std::convertible_to<std::size_t>;
  { x.dimension() } -> std::convertible_to<std::size_t>;
  { x.shape()[0] } -> std::convertible_to<std::size_t>;
  { x.strides()[0] } -> std::convertible_to<std::ptrdiff_t>;
};

template <class X>
concept mdspan_like = requires(X& x) {
  requires element_pointer<decltype(x.data_handle())>;
  { X::rank() } -> std::convertible_to<std::size_t>;
  { x.extent(0) } -> std::convertible_to<index_t>;
  { x.stride(0) } -> std::convertible_to<index_t>;
};

template <class X>
concept range_like = !eigen_like<X> && !xtensor_like<X> && !mdspan_like<X> && requires(X& x) {
  requires element_pointer<decltype(x.data())>;
  { x.size() } -> std::convertible_to<std::size_t>;
  { *x.begin() } -> std::same_as<pointee<decltype(x.data())>&>;
};

template <class X, int Rank>
concept c_array = std::is_bounded_array_v<X> && std::rank_v<X> == std::size_t{Rank} &&
                  tensor_element<std::remove_all_extents_t<X>>;

template <class X>
inline constexpr bool eigen_vector = false;
template <eigen_like X>
inline constexpr bool eigen_vector<X> = static_cast<bool>(X::IsVectorAtCompileTime);

template <class X>
inline constexpr int mdspan_rank = 0;
template <mdspan_like X>
inline constexpr int mdspan_rank<X> = static_cast<int>(X::rank());

// The rank that an xtensor type carries in its shape, or -1 when only the object knows it.
template <class X>
inline constexpr int xtensor_rank = -1;
template <xtensor_like X>
  requires requires(X& x) { std::tuple_size<std::remove_cvref_t<decltype(x.shape())>>::value; }
inline constexpr int xtensor_rank<X> =
    static_cast<int>(std::tuple_size<std::remove_cvref_t<decltype(std::declval<X&>().shape())>>::value);

template <class X, int Rank>
concept structurally_viewable =
    (eigen_like<X> && (Rank == 2 || (Rank == 1 && eigen_vector<std::remove_cv_t<X>>))) ||
    (xtensor_like<X> && (xtensor_rank<std::remove_cv_t<X>> == Rank || xtensor_rank<std::remove_cv_t<X>> < 0)) ||
    (mdspan_like<X> && mdspan_rank<std::remove_cv_t<X>> == Rank) || (range_like<X> && Rank == 1) || c_array<X, Rank>;

template <int Rank, class X>
concept viewable = is_view_of_rank<std::remove_cv_t<X>, Rank> ||
                   (!is_tensor_view<std::remove_cv_t<X>> && (has_tensor_traits<X, Rank> || structurally_viewable<X, Rank>));

template <class Element, class X, int... Dimension>
constexpr auto c_array_view(X& x, std::integer_sequence<int, Dimension...>) {
  return tensor_view<Element, int{sizeof...(Dimension)}>(reinterpret_cast<Element*>(&x),
                                                         std::extent_v<X, static_cast<unsigned>(Dimension)>...);
}

template <int Rank, class X>
constexpr auto view_of(X& x) {
  if constexpr (is_view_of_rank<std::remove_cv_t<X>, Rank>) {
    return x;
  } else if constexpr (has_tensor_traits<X, Rank>) {
    return tensor_traits<std::remove_cv_t<X>>::template view<Rank>(x);
  } else if constexpr (c_array<X, Rank>) {
    using element = std::remove_all_extents_t<X>;
    return c_array_view<element>(x, std::make_integer_sequence<int, Rank>{});
  } else if constexpr (eigen_like<X>) {
    using element = pointee<decltype(x.data())>;
    if constexpr (Rank == 1) {
      bool const is_column = x.cols() == 1;
      index_t const sizes[1] = {static_cast<index_t>(is_column ? x.rows() : x.cols())};
      index_t const steps[1] = {static_cast<index_t>(is_column ? x.rowStride() : x.colStride())};
      return tensor_view<element, 1>(x.data(), sizes, steps);
    } else {
      index_t const sizes[2] = {static_cast<index_t>(x.rows()), static_cast<index_t>(x.cols())};
      index_t const steps[2] = {static_cast<index_t>(x.rowStride()), static_cast<index_t>(x.colStride())};
      return tensor_view<element, 2>(x.data(), sizes, steps);
    }
  } else if constexpr (xtensor_like<X>) {
    using element = pointee<decltype(x.data())>;
    expects_equal(static_cast<long long>(x.dimension()), Rank, "as_tensor", "dimensions of an xtensor operand");
    index_t sizes[std::size_t{Rank}] = {};
    index_t steps[std::size_t{Rank}] = {};
    for (int d = 0; d < Rank; ++d) {
      sizes[d] = static_cast<index_t>(x.shape()[static_cast<std::size_t>(d)]);
      steps[d] = static_cast<index_t>(x.strides()[static_cast<std::size_t>(d)]);
    }
    return tensor_view<element, Rank>(x.data() + x.data_offset(), sizes, steps);
  } else if constexpr (mdspan_like<X>) {
    using element = pointee<decltype(x.data_handle())>;
    index_t sizes[std::size_t{Rank}] = {};
    index_t steps[std::size_t{Rank}] = {};
    for (int d = 0; d < Rank; ++d) {
      sizes[d] = static_cast<index_t>(x.extent(static_cast<std::size_t>(d)));
      steps[d] = static_cast<index_t>(x.stride(static_cast<std::size_t>(d)));
    }
    return tensor_view<element, Rank>(x.data_handle(), sizes, steps);
  } else {
    return tensor_view<pointee<decltype(x.data())>, 1>(x.data(), x.size());
  }
}

}  // namespace detail

/// X can be seen as a tensor of rank `Rank` without a copy.
template <class X, int Rank>
concept tensor_like = detail::viewable<Rank, std::remove_reference_t<X>>;
template <class X>
concept vector_like = tensor_like<X, 1>;
template <class X>
concept matrix_like = tensor_like<X, 2>;

/// The view of any tensor-like x. Cost O(Rank). A non-const x gives a writable view where its elements are.
/// The view must not outlive x. Throws `error` when an xtensor operand of run-time rank has another rank than `Rank`.
template <int Rank, class X>
  requires tensor_like<X, Rank>
[[nodiscard]] constexpr auto as_tensor(X&& x) {
  return detail::view_of<Rank>(x);
}

template <vector_like X>
[[nodiscard]] constexpr auto as_vector(X&& x) {
  return detail::view_of<1>(x);
}
template <matrix_like X>
[[nodiscard]] constexpr auto as_matrix(X&& x) {
  return detail::view_of<2>(x);
}

/// The view of x with const elements: the form in which algorithms take their inputs, so that a fused member
/// declared for `T const` is found whatever the caller passed.
template <vector_like X>
[[nodiscard]] constexpr auto as_const_vector(X&& x) {
  return as_const(detail::view_of<1>(x));
}
template <matrix_like X>
[[nodiscard]] constexpr auto as_const_matrix(X&& x) {
  return as_const(detail::view_of<2>(x));
}

}  // namespace v0
}  // namespace slimtrim
