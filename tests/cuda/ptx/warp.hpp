// 32 lanes in step: at each moment those with the lowest address run, so that lanes which parted meet again where the code does.
#pragma once

#include "program.hpp"
#include "value.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace ptx {

// Who touched two bytes of shared memory, and when. A moment is the number of barriers of the block, and within a warp the number
// of its own.
struct shared_shadow {
  std::uint32_t written = 0, written_in_warp = 0, read = 0, read_in_warp = 0, fences = 0;
  std::uint16_t writer = none, reader = none;
  std::uint8_t reader_warp = 0xff, copies = 0, products = 0;
  static constexpr std::uint16_t none = 0xffff, many = 0xfffe;
};

struct block {
  kernel const* code = nullptr;
  std::vector<unsigned char> parameters;
  std::vector<unsigned char> storage;
  unsigned char* shared = nullptr;  // of which the first 1024 bytes are nobody's
  std::size_t shared_bytes = 0;
  std::vector<shared_shadow> shadow;
  std::uint32_t barriers = 1;
  std::uint64_t number = 0;         // of the block in its grid
  unsigned index[3] = {}, threads = 0;
  bool early = false, drew_ticket = false;
};

struct pending_copy {
  std::uint64_t to = 0;
  void const* from = nullptr;
  std::int64_t bytes = 0, read = 0;
  int group = 0;
};
struct pending_product {
  instruction const* what = nullptr;
  std::uint64_t descriptor = 0;
  int group = -1;
};

struct warp {
  kernel const* code = nullptr;
  block* home = nullptr;
  unsigned number = 0;
  std::vector<std::uint64_t> slots;
  std::uint32_t running = 0, parked = 0, mask = 0;
  unsigned at[32] = {};
  std::uint32_t barriers = 1;  // of the warp alone
  std::uint32_t fences = 1;    // between ordinary writes and the asynchronous reads of tensor cores
  std::uint32_t waited = 0;    // lanes that waited for earlier work
  std::vector<pending_copy> copies[32];
  int open_copies[32] = {};
  std::vector<pending_product> products;
  std::vector<unsigned char> under_way;  // by slot: registers of products that have not been waited for
  int open_products = 0;
  std::vector<unsigned char> written;    // by slot, where the kernel has such products: since wgmma.fence
  std::vector<unsigned char> local;
  unsigned now = 0;  // the instruction that runs

  std::uint64_t* lanes(unsigned slot) { return slots.data() + static_cast<std::size_t>(slot) * 32; }
  [[nodiscard]] unsigned thread(unsigned lane) const { return number * 32 + lane; }
};

// What was counted of one instruction: how often a warp carried it out, and what its accesses took of shared memory (cycles) and of
// device memory (sectors), against the least.
struct access_tally {
  std::uint64_t taken = 0, least = 0;
};
struct tally {
  std::uint64_t carried_out = 0;
  access_tally shared, device;
};
std::vector<tally>& tallies();  // of the kernel that runs

template <class F>
void each_lane(warp const& w, F&& f) {
  for (std::uint32_t m = w.mask; m != 0; m &= m - 1) f(static_cast<unsigned>(__builtin_ctz(m)));
}

// Throws `violation`: kernel, block, thread, instruction, and what is wrong.
[[noreturn]] void stop(warp const& w, unsigned lane, std::string const& why);

// What products need too, of access_checks.cpp and memory.cpp.
void reads_shared(warp& w, unsigned lane, std::uint64_t address, std::size_t bytes, bool product = false);
void settle_copies(warp& w, unsigned lane, int pending);
void settle_products(warp& w, int pending);

}  // namespace ptx
