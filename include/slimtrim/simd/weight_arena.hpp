// Memory for converted weights: large aligned chunks that the system is asked to back with huge pages.
//
// Reading weights in 4 KiB pages costs a fourth of the bandwidth of one thread. Matrices are laid side by side, so that
// small ones share huge pages too.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>

#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

namespace slimtrim {
inline namespace v0 {
namespace simd {

/// Hands out zeroed, 64-byte aligned memory; each piece keeps its chunk alive. Safe to use from several threads.
class weight_arena {
 public:
  static constexpr std::size_t huge_page = std::size_t{2} << 20;
  static constexpr std::size_t chunk_bytes = std::size_t{32} << 20;

  weight_arena() = default;
  weight_arena(weight_arena const&) = delete;
  weight_arena& operator=(weight_arena const&) = delete;

  /// `bytes` bytes of zeros. Throws std::bad_alloc when there is no memory.
  [[nodiscard]] std::shared_ptr<std::byte> allocate(index_t bytes) {
    expects(bytes >= 0, "weight_arena", "negative size");
    // One vector's worth of slack: a kernel may load a whole vector at the last word.
    std::size_t const size = (static_cast<std::size_t>(bytes) + 64 + 63) / 64 * 64;
    if (size > chunk_bytes / 2) {
      auto chunk = new_chunk(size);
      std::byte* const data = chunk.get();
      return {std::move(chunk), data};
    }
    std::lock_guard const lock(mutex_);
    if (chunk_ == nullptr || used_ + size > chunk_bytes) {
      chunk_ = new_chunk(chunk_bytes);
      used_ = 0;
    }
    std::byte* const data = chunk_.get() + used_;
    used_ += size;
    return {chunk_, data};
  }

 private:
  // Fresh pages of the system are zero; touching them here instead would defeat lazy backing.
  static std::shared_ptr<std::byte> new_chunk(std::size_t size) {
#if __has_include(<sys/mman.h>) && defined(MAP_ANONYMOUS)
    std::size_t const whole = (size + huge_page - 1) / huge_page * huge_page;
    std::size_t const mapped = whole + huge_page;
    void* const base = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    void* aligned = base;
    std::size_t room = mapped;
    std::align(huge_page, whole, aligned, room);
#if defined(MADV_HUGEPAGE)
    // Advice only: where it is refused, ordinary pages serve.
    static_cast<void>(::madvise(aligned, whole, MADV_HUGEPAGE));
#endif
    return {static_cast<std::byte*>(aligned), [base, mapped](std::byte*) { ::munmap(base, mapped); }};
#else
    auto* const data = static_cast<std::byte*>(::operator new(size, std::align_val_t{64}));
    for (std::size_t i = 0; i < size; ++i) data[i] = std::byte{0};
    return {data, [](std::byte* p) { ::operator delete(p, std::align_val_t{64}); }};
#endif
  }

  std::mutex mutex_;
  std::shared_ptr<std::byte> chunk_;
  std::size_t used_ = 0;
};

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
