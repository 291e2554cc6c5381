// What a device would not stop at, or what compute-sanitizer would report: accesses outside, of what nobody wrote, and races.
#include "memory.hpp"
#include "warp.hpp"

#include <algorithm>
#include <memory>

namespace ptx {

namespace {

// Who wrote two bytes of device memory last.
struct global_shadow {
  std::uint32_t launch = 0, block = 0;
  std::uint16_t thread = 0, barriers = 0;
};

bool ordered(warp const& w, std::uint32_t moment, std::uint32_t in_warp, unsigned other_warp) {
  return moment < w.home->barriers || (other_warp == w.number && in_warp < w.barriers);
}

}  // namespace

std::string hexadecimal(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(value));
  return text;
}

emulator::device_range const& range_of(warp const& w, unsigned lane, std::uint64_t address, std::size_t bytes) {
  static emulator::device_range const* last = nullptr;
  static std::uint64_t last_change = 0;
  if (last == nullptr || last_change != emulator::range_changes() || address < last->first || address + bytes > last->first + last->bytes) {
    last = emulator::range_of(reinterpret_cast<void const*>(address));
    last_change = emulator::range_changes();
    if (last == nullptr || address + bytes > last->first + last->bytes) {
      emulator::device_range const* const found = last;
      last = nullptr;
      stop(w, lane, found == nullptr ? "global access at " + hexadecimal(address) + ", which is no device memory"
                                     : "global access of " + std::to_string(bytes) + " bytes at " +
                                           std::to_string(address - found->first) + " of " + std::to_string(found->bytes) + " bytes");
    }
  }
  return *last;
}

void touch_global(warp& w, unsigned lane, std::uint64_t address, std::size_t bytes, bool write, bool nc, bool same) {
  emulator::device_range const& range = range_of(w, lane, address, bytes);
  launch_state const& launch = current_launch();
  bool const before_wait = w.home->early && (w.waited >> lane & 1) == 0;
  if (before_wait && write) stop(w, lane, "a kernel that was launched early writes before it waits for earlier work");
  if (range.written.empty()) range.written.resize(range.bytes);
  auto const begin = range.written.begin() + static_cast<std::ptrdiff_t>(address - range.first), end = begin + static_cast<std::ptrdiff_t>(bytes);
  if (write) {
    std::fill(begin, end, static_cast<unsigned char>(1));
  } else if (std::find(begin, end, 0) != end) {
    stop(w, lane, "reads device memory that nobody wrote: byte " + std::to_string(address - range.first) + " of " + std::to_string(range.bytes));
  }
  if (range.notes == nullptr) range.notes = std::make_shared<std::vector<global_shadow>>(range.bytes / 2 + 1);
  auto* const notes = static_cast<std::vector<global_shadow>*>(range.notes.get())->data();
  std::size_t const first = (address - range.first) / 2, last = (address - range.first + bytes - 1) / 2;
  auto const me = static_cast<std::uint16_t>(w.thread(lane)), now = static_cast<std::uint16_t>(w.home->barriers);
  for (std::size_t n = first; n <= last; ++n) {
    global_shadow& e = notes[n];
    if (before_wait && e.launch >= launch.first_under_way && e.launch < launch.number)
      stop(w, lane, "reads before it waits for earlier work what that work (launch " + std::to_string(e.launch) + " of " + std::to_string(launch.number) + ") wrote");
    if (e.launch == launch.number && bytes > 1 && !same) {
      if (nc) stop(w, lane, "a read-only load of what this launch wrote");
      if (e.block != w.home->number) {
        if (!w.home->drew_ticket) stop(w, lane, std::string(write ? "writes" : "reads") + " what block " + std::to_string(e.block) + " wrote in this launch");
      } else if (e.thread / 32 != me / 32 && e.barriers == now) {
        stop(w, lane, std::string(write ? "writes" : "reads") + " what thread " + std::to_string(e.thread) + " wrote, with no barrier between");
      }
    }
    if (write) e = {launch.number, static_cast<std::uint32_t>(w.home->number), me, now};
  }
}

void check_shared(warp& w, unsigned lane, std::uint64_t address, std::size_t bytes) {
  if (address < 1024 || address + bytes > w.home->shared_bytes)
    stop(w, lane, "shared access of " + std::to_string(bytes) + " bytes at " + std::to_string(static_cast<std::int64_t>(address) - 1024) + " of " +
                      std::to_string(w.home->shared_bytes - 1024) + " bytes");
}

void writes_shared(warp& w, unsigned lane, std::uint64_t address, std::size_t bytes, bool copy, bool same) {
  check_shared(w, lane, address, bytes);
  auto const me = static_cast<std::uint16_t>(w.thread(lane));
  for (std::size_t n = address / 2; n <= (address + bytes - 1) / 2; ++n) {
    shared_shadow& e = w.home->shadow[n];
    if (bytes > 1) {
      if (e.copies != 0 && !copy) stop(w, lane, "writes what a copy under way writes too");
      if (e.products != 0) stop(w, lane, "writes what a product under way reads");
      if (!same && e.writer != shared_shadow::none && e.writer != me && !ordered(w, e.written, e.written_in_warp, e.writer / 32))
        stop(w, lane, "writes what thread " + std::to_string(e.writer) + " wrote, with no barrier between");
      if (e.reader != shared_shadow::none && e.reader != me && !ordered(w, e.read, e.read_in_warp, e.reader_warp))
        stop(w, lane, "writes what " + (e.reader == shared_shadow::many ? std::string("others") : "thread " + std::to_string(e.reader)) + " read, with no barrier between");
    }
    e.writer = me;
    e.written = w.home->barriers;
    e.written_in_warp = w.barriers;
    e.fences = w.fences;
  }
}

void reads_shared(warp& w, unsigned lane, std::uint64_t address, std::size_t bytes, bool product) {
  check_shared(w, lane, address, bytes);
  auto const me = static_cast<std::uint16_t>(w.thread(lane));
  for (std::size_t n = address / 2; n <= (address + bytes - 1) / 2; ++n) {
    shared_shadow& e = w.home->shadow[n];
    if (bytes > 1) {
      if (e.copies != 0) stop(w, lane, "reads what a copy under way writes");
      if (e.writer == shared_shadow::none) stop(w, lane, "reads shared memory that nobody wrote");
      if (e.writer != shared_shadow::none && e.writer != me && !ordered(w, e.written, e.written_in_warp, e.writer / 32))
        stop(w, lane, "reads what thread " + std::to_string(e.writer) + " wrote, with no barrier between");
      if (product && e.writer != shared_shadow::none && e.fences >= writer_fences(w, e.writer / 32))
        stop(w, lane, "a product reads what thread " + std::to_string(e.writer) + " wrote, with no fence between");
    }
    bool const same_moment = e.reader != shared_shadow::none && e.read == w.home->barriers;
    if (same_moment && e.reader != me) {
      e.reader = shared_shadow::many;
      if (e.reader_warp != w.number) e.reader_warp = 0xff;
    } else {
      e.reader = me;
      e.reader_warp = static_cast<std::uint8_t>(w.number);
    }
    e.read = w.home->barriers;
    e.read_in_warp = w.barriers;
  }
}

}  // namespace ptx
