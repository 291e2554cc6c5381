// Operands of the backend suite: a matrix in any layout inside guarded storage, and its way to the backend's memory.
#pragma once

#include <slimtrim/core/random.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace backend_tests {

using namespace slimtrim;

// How the elements of a matrix lie. `backwards` has negative strides in both dimensions; `broadcast_rows` repeats one
// row and is for inputs only.
enum class layout { rows, columns, padded_rows, padded_columns, scattered, backwards, broadcast_rows };

inline constexpr layout writable_layouts[] = {layout::rows,           layout::columns,   layout::padded_rows,
                                              layout::padded_columns, layout::scattered, layout::backwards};
inline constexpr layout all_layouts[] = {layout::rows,           layout::columns,   layout::padded_rows,
                                         layout::padded_columns, layout::scattered, layout::backwards,
                                         layout::broadcast_rows};

// A matrix whose gaps and surroundings hold `poison`: NaN for floats, so that reading one shows, and a recorded bit
// pattern, so that writing one shows.
template <class T>
class operand {
 public:
  operand(index_t n, index_t m, layout how) {
    extents_[0] = n;
    extents_[1] = m;
    index_t const pad = 3;
    switch (how) {
      case layout::rows: set_strides(m, 1); break;
      case layout::columns: set_strides(1, n); break;
      case layout::padded_rows: set_strides(m + pad, 1); break;
      case layout::padded_columns: set_strides(1, n + pad); break;
      case layout::scattered: set_strides(2 * m + pad, 2); break;
      case layout::backwards: set_strides(-(m + pad), -1); break;
      case layout::broadcast_rows: set_strides(0, 1); break;
    }
    index_t lowest = 0, highest = 0;
    for (int d = 0; d < 2; ++d) {
      index_t const reach = extents_[d] > 0 ? (extents_[d] - 1) * strides_[d] : 0;
      (reach < 0 ? lowest : highest) += reach;
    }
    offset_ = guard - lowest;
    storage_.assign(static_cast<std::size_t>(highest - lowest + 1 + 2 * guard), poison());
    record();
  }

  // Standard normal elements, a function of (stream, row, column).
  static operand random(index_t n, index_t m, layout how, std::uint64_t stream) {
    operand x(n, m, how);
    auto const view = x.host();
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j)
        view(i, j) = static_cast<T>(normal_at(17, stream, static_cast<std::uint64_t>(i * 65536 + j)));
    x.record();
    return x;
  }

  [[nodiscard]] matrix_view<T> host() { return matrix_view<T>(storage_.data() + offset_, extents_, strides_); }
  [[nodiscard]] matrix_view<T const> host() const {
    return matrix_view<T const>(storage_.data() + offset_, extents_, strides_);
  }
  [[nodiscard]] index_t offset() const { return offset_; }
  [[nodiscard]] std::vector<T>& storage() { return storage_; }

  // Remembers the present contents; `intact_outside` compares everything that is not an element with them.
  void record() { recorded_ = storage_; }
  [[nodiscard]] bool intact_outside() const {
    std::vector<T> patched = storage_;
    auto const now = matrix_view<T>(patched.data() + offset_, extents_, strides_);
    auto const before = matrix_view<T const>(recorded_.data() + offset_, extents_, strides_);
    for (index_t i = 0; i < extents_[0]; ++i)
      for (index_t j = 0; j < extents_[1]; ++j) now(i, j) = before(i, j);
    return std::memcmp(patched.data(), recorded_.data(), patched.size() * sizeof(T)) == 0;
  }
  [[nodiscard]] bool untouched() const {
    return std::memcmp(storage_.data(), recorded_.data(), storage_.size() * sizeof(T)) == 0;
  }

 private:
  static constexpr index_t guard = 16;
  static T poison() {
    if constexpr (std::numeric_limits<T>::has_quiet_NaN) {
      return std::numeric_limits<T>::quiet_NaN();
    } else {
      return static_cast<T>(-123456);
    }
  }
  void set_strides(index_t down, index_t across) {
    strides_[0] = down;
    strides_[1] = across;
  }

  std::vector<T> storage_, recorded_;
  index_t extents_[2] = {}, strides_[2] = {}, offset_ = 0;
};

// The hooks by which operands reach a backend's memory. A device harness has the same two members: `upload` makes a
// copy of the storage and returns where it starts, `download` brings it back and frees it.
struct host_memory {
  template <class T>
  T* upload(std::vector<T>& storage) {
    return storage.data();
  }
  template <class T>
  void download(T*, std::vector<T>&) {}
};

// An operand in the backend's memory for the time of one call; it comes back when `placed` ends.
template <class Harness, class T>
class placed {
 public:
  placed(Harness& harness, operand<T>& x) : harness_(harness), operand_(x), start_(harness.upload(x.storage())) {}
  placed(placed const&) = delete;
  placed& operator=(placed const&) = delete;
  ~placed() { harness_.download(start_, operand_.storage()); }

  [[nodiscard]] auto view() const {
    auto const host = operand_.host();
    return matrix_view<T, Harness::memory>(start_ + operand_.offset(), host.extents, host.strides);
  }
  [[nodiscard]] auto reading() const { return as_const(view()); }
  // A matrix of one column as a vector.
  [[nodiscard]] auto vector() const { return column(view(), 0); }
  [[nodiscard]] auto reading_vector() const { return as_const(vector()); }

 private:
  Harness& harness_;
  operand<T>& operand_;
  T* start_;
};

}  // namespace backend_tests
