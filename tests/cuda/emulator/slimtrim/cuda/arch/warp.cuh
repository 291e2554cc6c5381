// The host's stand-in for include/slimtrim/cuda/arch/warp.cuh: the same functions over emulated threads.
#pragma once

#include <slimtrim/cuda/words.hpp>

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

inline void sync_block() { emulator::wait_for_block(); }
inline void sync_warp() { emulator::wait_for_warp(); }

inline void wait_for_earlier_work() { emulator::wait_for_earlier_work(); }
inline void let_later_work_begin() {}

template <class T>
[[nodiscard]] T shuffle(T value, int from) {
  static_assert(sizeof(T) <= 32);
  auto* const slots = emulator::exchange_slots();
  std::memcpy(slots[emulator::lane()], &value, sizeof(T));
  emulator::wait_for_warp();
  T taken;
  std::memcpy(&taken, slots[from & 31], sizeof(T));
  emulator::wait_for_warp();
  return taken;
}
template <class T>
[[nodiscard]] T shuffle_xor(T value, int mask) {
  return shuffle(value, emulator::lane() ^ mask);
}
[[nodiscard]] inline std::uint32_t ballot(bool mine) {
  auto* const slots = emulator::exchange_slots();
  slots[emulator::lane()][0] = mine ? 1 : 0;
  emulator::wait_for_warp();
  std::uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<std::uint32_t>(slots[i][0]) << i;
  emulator::wait_for_warp();
  return bits;
}
[[nodiscard]] inline int count_bits(std::uint32_t bits) { return __builtin_popcount(bits); }
[[nodiscard]] inline std::uint32_t and_or(std::uint32_t a, std::uint32_t b, std::uint32_t c) { return (a & b) | c; }
inline void settle(float&) {}
[[nodiscard]] inline unsigned char* shared_memory() { return emulator::shared_bytes(); }
// A device stops at a load that is not aligned to its size.
template <class Word>
[[nodiscard]] Word aligned_load(Word const* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % sizeof(Word) != 0) __builtin_trap();
  return *from;
}
[[nodiscard]] inline words4 load_once(words4 const* from) { return aligned_load(from); }
[[nodiscard]] inline words2 load_once(words2 const* from) { return aligned_load(from); }
[[nodiscard]] inline std::uint32_t load_once(std::uint32_t const* from) { return aligned_load(from); }
[[nodiscard]] inline words4 load_shared_by_blocks(words4 const* from) { return aligned_load(from); }
[[nodiscard]] inline std::uint32_t load_shared_by_blocks(std::uint32_t const* from) { return aligned_load(from); }
[[nodiscard]] inline std::uint16_t load_shared_by_blocks(std::uint16_t const* from) { return aligned_load(from); }
[[nodiscard]] inline words4 load_made_before(words4 const* from) { return aligned_load(from); }
template <class Word>
[[nodiscard]] Word load_ahead(Word const* from) {
  return aligned_load(from);
}
inline void store_to_shared(words4* to, words4 const& v) {
  if (reinterpret_cast<std::uintptr_t>(to) % sizeof(words4) != 0) __builtin_trap();
  *to = v;
}
[[nodiscard]] inline float load_fresh(float const* from) { return *from; }
[[nodiscard]] inline std::int32_t load_fresh(std::int32_t const* from) { return *from; }
inline void raise_to(unsigned long long* at, unsigned long long value) { *at = *at < value ? value : *at; }
inline void lower_to(int* at, int value) { *at = value < *at ? value : *at; }
inline void count_up(int* at) { ++*at; }
inline void add_to(unsigned int* at, unsigned int value) { *at += value; }
[[nodiscard]] inline unsigned int draw_ticket(unsigned int* counter) { return (*counter)++; }

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
