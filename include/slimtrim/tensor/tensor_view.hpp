// A non-owning view of a tensor: pointer, extents, strides, and the memory space in its type.
//
// It is the one data type that algorithms see. It is trivially copyable, so it may be a kernel argument, and it is
// passed by value. Constness is in the element type: `tensor_view<float const, 2>` reads, `tensor_view<float, 2>` writes.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/core/memory_space.hpp>

#include <cstddef>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// A view of `Rank` dimensions of T in memory of kind `Space`.
template <class T, int Rank, space Space = space::host>
struct tensor_view {
  static_assert(Rank >= 1, "a tensor has at least one dimension");
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  static constexpr int rank = Rank;
  static constexpr space memory = Space;

  T* data = nullptr;
  index_t extents[std::size_t{Rank}] = {};
  index_t strides[std::size_t{Rank}] = {};  // in elements

  tensor_view() = default;

  /// A contiguous view in C order (last index fastest) of `extents...` elements at `pointer`.
  template <class... Extents>
    requires(sizeof...(Extents) == Rank && (std::is_convertible_v<Extents, index_t> && ...))
  SLIMTRIM_HD constexpr explicit tensor_view(T* pointer, Extents... sizes)
      : data(pointer), extents{static_cast<index_t>(sizes)...} {
    index_t stride = 1;
    for (int d = Rank - 1; d >= 0; --d) {
      strides[d] = stride;
      stride *= extents[d];
    }
  }

  /// A view with explicit extents and strides.
  SLIMTRIM_HD constexpr tensor_view(T* pointer, index_t const (&sizes)[std::size_t{Rank}],
                                    index_t const (&steps)[std::size_t{Rank}])
      : data(pointer) {
    for (int d = 0; d < Rank; ++d) {
      extents[d] = sizes[d];
      strides[d] = steps[d];
    }
  }

  /// Reading views are made from writing ones.
  template <class U>
    requires(std::is_same_v<U const, T> && !std::is_const_v<U>)
  // NOLINTNEXTLINE(google-explicit-constructor): losing write access is safe.
  SLIMTRIM_HD constexpr tensor_view(tensor_view<U, Rank, Space> other) : data(other.data) {
    for (int d = 0; d < Rank; ++d) {
      extents[d] = other.extents[d];
      strides[d] = other.strides[d];
    }
  }

  [[nodiscard]] SLIMTRIM_HD constexpr index_t extent(int d) const { return extents[d]; }
  [[nodiscard]] SLIMTRIM_HD constexpr index_t stride(int d) const { return strides[d]; }

  [[nodiscard]] SLIMTRIM_HD constexpr index_t size() const {
    index_t count = 1;
    for (int d = 0; d < Rank; ++d) count *= extents[d];
    return count;
  }
  [[nodiscard]] SLIMTRIM_HD constexpr bool empty() const { return size() == 0; }

  /// Whether the elements lie side by side in C order.
  [[nodiscard]] SLIMTRIM_HD constexpr bool contiguous() const {
    index_t expected = 1;
    for (int d = Rank - 1; d >= 0; --d) {
      if (extents[d] != 1 && strides[d] != expected) return false;
      expected *= extents[d];
    }
    return true;
  }

  /// The element at (i, j, ...). Not bounds-checked: algorithms check extents once, on entry.
  template <class... Indices>
    requires(sizeof...(Indices) == Rank)
  SLIMTRIM_HD constexpr T& operator()(Indices... indices) const {
    index_t const at[std::size_t{Rank}] = {static_cast<index_t>(indices)...};
    index_t offset = 0;
    for (int d = 0; d < Rank; ++d) offset += at[d] * strides[d];
    return data[offset];
  }
};

template <class T, space Space = space::host>
using vector_view = tensor_view<T, 1, Space>;
template <class T, space Space = space::host>
using matrix_view = tensor_view<T, 2, Space>;

template <class X>
inline constexpr bool is_tensor_view = false;
template <class T, int Rank, space Space>
inline constexpr bool is_tensor_view<tensor_view<T, Rank, Space>> = true;

}  // namespace v0
}  // namespace slimtrim
