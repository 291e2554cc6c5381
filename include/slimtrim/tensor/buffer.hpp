// Owning host storage: 64-byte aligned, uninitialised until written, movable only.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/tensor/adapt.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace slimtrim {
inline namespace v0 {

/// `size` elements of a trivial type T, aligned for any vector instruction. Contents start indeterminate.
template <class T>
class buffer {
  static_assert(std::is_trivially_copyable_v<T>, "buffer holds plain data");

 public:
  static constexpr std::size_t alignment = 64;

  buffer() = default;
  explicit buffer(index_t size) : size_(size) {
    expects(size >= 0, "buffer", "negative size");
    expects(size <= PTRDIFF_MAX / static_cast<index_t>(sizeof(T)), "buffer", "size in bytes does not fit in memory");
    if (size > 0)
      data_ = static_cast<T*>(::operator new(static_cast<std::size_t>(size) * sizeof(T), std::align_val_t{alignment}));
  }
  buffer(index_t size, T value) : buffer(size) { std::fill_n(data_, static_cast<std::size_t>(size), value); }
  buffer(buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~buffer() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t{alignment});
  }

  [[nodiscard]] T* data() { return data_; }
  [[nodiscard]] T const* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return static_cast<std::size_t>(size_); }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  T& operator[](index_t i) { return data_[i]; }
  T const& operator[](index_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  T const* begin() const { return data_; }
  T const* end() const { return data_ + size_; }

 private:
  T* data_ = nullptr;
  index_t size_ = 0;
};

/// An owning, contiguous host tensor in C order. `tensor<float, 2> x(rows, columns)` is uninitialised;
/// `x.view()` and `as_tensor` see it without a copy.
template <class T, int Rank>
class tensor {
 public:
  using value_type = T;
  tensor() = default;
  template <class... Extents>
    requires(sizeof...(Extents) == Rank && (std::is_convertible_v<Extents, index_t> && ...))
  explicit tensor(Extents... sizes)
      : storage_(count_of({static_cast<index_t>(sizes)...})), view_(storage_.data(), sizes...) {}

  tensor(tensor&& other) noexcept
      : storage_(std::move(other.storage_)), view_(std::exchange(other.view_, tensor_view<T, Rank>{})) {}
  tensor& operator=(tensor&& other) noexcept {
    std::swap(storage_, other.storage_);
    std::swap(view_, other.view_);
    return *this;
  }

  [[nodiscard]] tensor_view<T, Rank> view() { return view_; }
  [[nodiscard]] tensor_view<T const, Rank> view() const { return view_; }
  [[nodiscard]] index_t extent(int d) const { return view_.extents[d]; }
  [[nodiscard]] bool empty() const { return storage_.empty(); }
  void fill(T value) { std::fill_n(storage_.data(), storage_.size(), value); }
  template <class... Indices>
  T& operator()(Indices... at) {
    return view_(at...);
  }
  template <class... Indices>
  T const& operator()(Indices... at) const {
    return view_(at...);
  }

  /// A deep copy; never implicit.
  [[nodiscard]] tensor clone() const {
    tensor copy;
    copy.storage_ = buffer<T>(view_.size());
    std::copy(storage_.begin(), storage_.end(), copy.storage_.begin());
    copy.view_ = view_;
    copy.view_.data = copy.storage_.data();
    return copy;
  }

 private:
  static index_t count_of(index_t const (&sizes)[std::size_t{Rank}]) {
    index_t count = 1;
    for (index_t const size : sizes) {
      expects(size >= 0, "tensor", "negative extent");
      expects(!__builtin_mul_overflow(count, size, &count), "tensor", "number of elements does not fit in 64 bits");
    }
    return count;
  }

  buffer<T> storage_;
  tensor_view<T, Rank> view_{};
};

template <class T>
using matrix = tensor<T, 2>;

template <class T, int OwnRank>
struct tensor_traits<tensor<T, OwnRank>> {
  template <int Rank, class X>
    requires(Rank == OwnRank)
  static constexpr auto view(X& x) {
    return x.view();
  }
};

}  // namespace v0
}  // namespace slimtrim
