// The host's stand-in for include/slimtrim/cuda/arch/sm90.cuh, from the PTX manual: "Asynchronous warpgroup-level
// matrix instructions", the register fragments of D and A for wgmma.m64nNk16, the matrix descriptor, and the 128-byte
// swizzle.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

inline constexpr int warpgroup_tokens = 128;

// Shared memory begins at address 1024, so that an address of 0 is wrong.
[[nodiscard]] inline std::uint32_t shared_address(void const* at) {
  return static_cast<std::uint32_t>(static_cast<unsigned char const*>(at) - emulator::shared_bytes()) + 1024;
}
[[nodiscard]] constexpr std::uint64_t swizzled_rows(std::uint32_t address) {
  return (address & 0x3ffffU) >> 4 | std::uint64_t{1} << 16 | std::uint64_t{64} << 32 | std::uint64_t{1} << 62;
}

// An instruction that was started: it reads B and writes D as late as the rules allow, when its thread waits.
struct pending_product {
  float A[16][16];
  float (*d)[4];
  std::uint64_t tokens;
  float (*read)(void const*);
  int group;
};
struct warpgroup_queue {
  std::vector<pending_product> products;
  int open_group = 0;
};
[[nodiscard]] inline warpgroup_queue& queue_of_thread() {
  static warpgroup_queue queues[1024];  // blocks run one after another
  return queues[threadIdx.x];
}

inline void finish(pending_product const& product) {
  // Bits 0-13 start, 16-29 leading offset, 32-45 stride, all in units of 16 bytes; 49-51 base offset; 62-63 swizzle, 1:
  // 128 bytes.
  if (product.tokens >> 62 != 1 || (product.tokens >> 49 & 7U) != 0) __builtin_trap();
  auto const start = static_cast<std::uint32_t>(product.tokens & 0x3fffU) << 4;
  auto const stride = static_cast<std::uint32_t>(product.tokens >> 32 & 0x3fffU) << 4;
  auto const B = [&](int k, int n) {
    auto address = start + static_cast<std::uint32_t>(n / 8) * stride + static_cast<std::uint32_t>(n % 8) * 128 +
                   static_cast<std::uint32_t>(k) * 2;
    address ^= (address >> 7 & 7U) << 4;  // bits 4-6 by bits 7-9
    return product.read(emulator::shared_bytes() + address - 1024);
  };
  for (int j = 0; j < warpgroup_tokens / 8; ++j)
    for (int i = 0; i < 4; ++i) {
      int const row = (emulator::lane() >> 2) + (i < 2 ? 0 : 8), column = 8 * j + (emulator::lane() % 4) * 2 + (i & 1);
      float sum = product.d[j][i];
      for (int k = 0; k < 16; ++k) sum += product.A[row][k] * B(k, column);
      product.d[j][i] = sum;
    }
}

inline void fence_for_warpgroup() {}
inline void begin_warpgroup() {}
inline void commit_warpgroup() { ++queue_of_thread().open_group; }
template <int Pending>
void wait_for_warpgroup() {
  auto& queue = queue_of_thread();
  std::size_t done = 0;
  while (done < queue.products.size() && queue.products[done].group < queue.open_group - Pending)
    finish(queue.products[done++]);
  queue.products.erase(queue.products.begin(), queue.products.begin() + static_cast<std::ptrdiff_t>(done));
}

template <half_precision T>
[[nodiscard]] float read_half(void const* at) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, 2);
  return static_cast<float>(T::from_bits(bits));
}

template <half_precision T>
void multiply_warpgroup(float (&d)[warpgroup_tokens / 8][4], std::uint32_t const (&a)[4], std::uint64_t tokens) {
  auto* const slots = emulator::exchange_slots();
  std::memcpy(slots[emulator::lane()], a, 16);
  emulator::wait_for_warp();
  auto& queue = queue_of_thread();
  pending_product product{{}, d, tokens, read_half<T>, queue.open_group};
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 8; ++i) {
      int const row = (lane >> 2) + ((i < 2 || (i >= 4 && i < 6)) ? 0 : 8);
      product.A[row][(lane % 4) * 2 + (i & 1) + (i >= 4 ? 8 : 0)] = read_half<T>(slots[lane] + 2 * i);
    }
  queue.products.push_back(product);
  emulator::wait_for_warp();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
