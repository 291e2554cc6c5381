// The host's stand-in for include/slimtrim/cuda/arch/sm90.cuh, from the PTX manual: "Asynchronous warpgroup-level
// matrix instructions", the register fragments of D and A for wgmma.m64nNk16, the matrix descriptor, and the 128-byte
// swizzle.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>

#include <cstdint>
#include <cstring>

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

inline void fence_for_warpgroup() {}
inline void begin_warpgroup() {}
inline void commit_warpgroup() {}
template <int Pending>
void wait_for_warpgroup() {}

template <half_precision T>
void multiply_warpgroup(float (&d)[warpgroup_tokens / 8][4], std::uint32_t const (&a)[4], std::uint64_t tokens) {
  // Bits 0-13 start, 16-29 leading offset, 32-45 stride, all in units of 16 bytes; 49-51 base offset; 62-63 swizzle, 1:
  // 128 bytes.
  if (tokens >> 62 != 1 || (tokens >> 49 & 7U) != 0) __builtin_trap();
  auto const start = static_cast<std::uint32_t>(tokens & 0x3fffU) << 4,
             stride = static_cast<std::uint32_t>(tokens >> 32 & 0x3fffU) << 4;
  auto* const slots = emulator::exchange_slots();
  std::memcpy(slots[emulator::lane()], a, 16);
  emulator::wait_for_warp();
  auto const half = [](void const* at) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, at, 2);
    return static_cast<float>(T::from_bits(bits));
  };
  float A[16][16];
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 8; ++i) {
      int const row = (lane >> 2) + ((i < 2 || (i >= 4 && i < 6)) ? 0 : 8);
      A[row][(lane % 4) * 2 + (i & 1) + (i >= 4 ? 8 : 0)] = half(slots[lane] + 2 * i);
    }
  auto const B = [&](int k, int n) {
    auto address = start + static_cast<std::uint32_t>(n / 8) * stride + static_cast<std::uint32_t>(n % 8) * 128 +
                   static_cast<std::uint32_t>(k) * 2;
    address ^= (address >> 7 & 7U) << 4;  // bits 4-6 by bits 7-9
    return half(emulator::shared_bytes() + address - 1024);
  };
  for (int j = 0; j < warpgroup_tokens / 8; ++j)
    for (int i = 0; i < 4; ++i) {
      int const row = (emulator::lane() >> 2) + (i < 2 ? 0 : 8), column = 8 * j + (emulator::lane() % 4) * 2 + (i & 1);
      float sum = d[j][i];
      for (int k = 0; k < 16; ++k) sum += A[row][k] * B(k, column);
      d[j][i] = sum;
    }
  emulator::wait_for_warp();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
