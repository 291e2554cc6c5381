// What the accesses of a launch are judged by.
#pragma once

#include "warp.hpp"

#include <cstdint>

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

// The fences that warp `number` of the block of `w` has passed.
std::uint32_t writer_fences(warp const& w, unsigned number);

}  // namespace ptx
