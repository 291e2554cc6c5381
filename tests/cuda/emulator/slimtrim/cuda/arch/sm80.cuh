// The host's stand-in for include/slimtrim/cuda/arch/sm80.cuh.
//
// The fragments of the tensor-core instruction are written out here once more, as the PTX manual's figures give them, so
// that fragment.hpp is held against something else than itself.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>

#include <cstdint>
#include <cstring>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

template <half_precision T>
void multiply_tile(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t const (&b)[2]) {
  auto* const slots = emulator::exchange_slots();
  std::memcpy(slots[emulator::lane()], a, 16);
  std::memcpy(slots[emulator::lane()] + 16, b, 8);
  emulator::wait_for_warp();
  auto const element = [&](int lane, int offset, int index) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, slots[lane] + offset + 2 * index, 2);
    return static_cast<float>(T::from_bits(bits));
  };
  // PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type", elements a0 .. a7 and b0 .. b3 of a lane.
  float A[16][16], B[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    int const group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 8; ++i) {
      int const row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
      int const column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      A[row][column] = element(lane, 0, i);
    }
    for (int i = 0; i < 4; ++i) B[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = element(lane, 16, i);
  }
  int const group = emulator::lane() >> 2, in_group = emulator::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    int const row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
    float sum = d[i];
    for (int k = 0; k < 16; ++k) sum += A[row][k] * B[k][column];
    d[i] = sum;
  }
  emulator::wait_for_warp();
}

// PTX ISA, "Matrix fragments for sparse mma.m16n8k32 with .f16 and .bf16 types", and its figure of the metadata: thread
// 2 f of a quad has the bits of columns 0 to 15, thread 2 f + 1 those of columns 16 to 31; row of the group in the low,
// row + 8 in the high half.
template <half_precision T, int Selector>
void multiply_sparse_tile(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t const (&b)[4],
                          std::uint32_t places) {
  // Two exchanges: slots hold 32 bytes.
  auto* const slots = emulator::exchange_slots();
  std::memcpy(slots[emulator::lane()], a, 16);
  std::memcpy(slots[emulator::lane()] + 16, b, 16);
  emulator::wait_for_warp();
  auto const element = [&](int lane, int offset, int index) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, slots[lane] + offset + 2 * index, 2);
    return static_cast<float>(T::from_bits(bits));
  };
  float kept[16][8][2], B[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    int const group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 8; ++i) {
      int const row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
      int const first_column = in_group * 4 + (i < 4 ? 0 : 16);
      kept[row][first_column / 4][i & 1] = element(lane, 0, i);
      B[in_group * 2 + (i & 1) + 8 * (i / 2)][group] = element(lane, 16, i);
    }
  }
  emulator::wait_for_warp();
  std::memcpy(slots[emulator::lane()], &places, 4);
  emulator::wait_for_warp();
  float A[16][32] = {};
  for (int row = 0; row < 16; ++row)
    for (int chunk = 0; chunk < 8; ++chunk) {
      std::uint32_t word = 0;
      std::memcpy(&word, slots[4 * (row % 8) + 2 * Selector + (chunk >= 4 ? 1 : 0)], 4);
      std::uint32_t const bits = word >> ((row >= 8 ? 16 : 0) + 4 * (chunk % 4));
      std::uint32_t const first = bits & 3U, second = bits >> 2 & 3U;
      if (first >= second) __builtin_trap();  // ordered_metadata asks for it
      A[row][4 * chunk + static_cast<int>(first)] = kept[row][chunk][0];
      A[row][4 * chunk + static_cast<int>(second)] = kept[row][chunk][1];
    }
  int const group = emulator::lane() >> 2, in_group = emulator::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    int const row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
    float sum = d[i];
    for (int k = 0; k < 32; ++k) sum += A[row][k] * B[k][column];
    d[i] = sum;
  }
  emulator::wait_for_warp();
}

template <half_precision T>
[[nodiscard]] std::uint32_t subtract_pairs(std::uint32_t a, std::uint32_t b) {
  auto const one = [&](bool upper) {
    return T(static_cast<float>(element_of_pair<T>(a, upper)) - static_cast<float>(element_of_pair<T>(b, upper)));
  };
  return pair_of<T>(one(false), one(true));
}
template <half_precision T>
[[nodiscard]] std::uint32_t multiply_pairs(std::uint32_t a, std::uint32_t b) {
  auto const one = [&](bool upper) {
    return T(static_cast<float>(element_of_pair<T>(a, upper)) * static_cast<float>(element_of_pair<T>(b, upper)));
  };
  return pair_of<T>(one(false), one(true));
}
[[nodiscard]] inline std::uint32_t doubled(std::uint32_t pair, bool upper) {
  return (upper ? pair >> 16 : pair & 0xffffU) * 0x10001U;
}
template <half_precision T>
[[nodiscard]] std::uint32_t round_pair(float low, float high) {
  return pair_of<T>(T(low), T(high));
}

[[nodiscard]] inline float widen_float16(std::uint16_t bits) { return static_cast<float>(float16::from_bits(bits)); }

template <half_precision T>
[[nodiscard]] float widen_pair(std::uint32_t pair, bool upper) {
  return static_cast<float>(element_of_pair<T>(pair, upper));
}

inline void copy_async(void* to_shared, void const* from, bool valid = true) {
  if (reinterpret_cast<std::uintptr_t>(to_shared) % 16 != 0 || (valid && reinterpret_cast<std::uintptr_t>(from) % 16 != 0))
    __builtin_trap();
  emulator::start_copy(to_shared, from, valid);
}
inline void commit_copies() { emulator::close_copies(); }
template <int Pending>
void wait_for_copies() {
  emulator::wait_copies(Pending);
}


// PTX ISA, "ldmatrix": with .trans a lane gets column lane / 4, rows 2 (lane % 4) and the next, of each matrix.
inline void load_transposed(std::uint32_t (&d)[4], void const* row_in_shared) {
  if (reinterpret_cast<std::uintptr_t>(row_in_shared) % 16 != 0) __builtin_trap();
  auto* const slots = emulator::exchange_slots();
  std::memcpy(slots[emulator::lane()], &row_in_shared, sizeof(void*));
  emulator::wait_for_warp();
  int const column = emulator::lane() >> 2, first = emulator::lane() % 4 * 2;
  for (int matrix = 0; matrix < 4; ++matrix) {
    std::uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      unsigned char const* row = nullptr;
      std::memcpy(&row, slots[8 * matrix + first + i], sizeof(row));
      std::memcpy(&pair[i], row + 2 * column, 2);
    }
    d[matrix] = static_cast<std::uint32_t>(pair[0]) | static_cast<std::uint32_t>(pair[1]) << 16;
  }
  emulator::wait_for_warp();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
