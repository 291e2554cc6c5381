// What the accesses of a launch are judged by.
#pragma once

#include "warp.hpp"

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace ptx {

struct launch_state {
  std::uint32_t number = 0;
  // Launches from here on may still run while a kernel that was launched early has not waited.
  std::uint32_t first_under_way = 0;
  bool early = false;
};
launch_state const& current_launch();

// Whether accesses are counted, which takes several times as long.
bool counting();

// Each throws `violation` for an access that is not allowed, and notes the others. `same`: what is written stands there already, which
// several threads may do at once; `copy`: the writer is an asynchronous copy.
std::string hexadecimal(std::uint64_t value);
emulator::device_range const& range_of(warp const& w, unsigned lane, std::uint64_t address, std::size_t bytes);
void touch_global(warp& w, unsigned lane, std::uint64_t address, std::size_t bytes, bool write, bool nc, bool same = false);
void check_shared(warp& w, unsigned lane, std::uint64_t address, std::size_t bytes);
void writes_shared(warp& w, unsigned lane, std::uint64_t address, std::size_t bytes, bool copy = false, bool same = false);

// The fences that warp `number` of the block of `w` has passed.
std::uint32_t writer_fences(warp const& w, unsigned number);

}  // namespace ptx
