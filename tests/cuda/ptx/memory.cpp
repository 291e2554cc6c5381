// Loads, stores, atomics and copies, each access checked: it is aligned, lies in what the kernel may touch, and does not race.
#include "warp.hpp"

#include "memory.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <stdexcept>

namespace ptx {

namespace {

using strings = std::vector<std::string>;

enum space : std::int64_t { parameters, shared, local, global, generic };
constexpr std::int64_t space_bits = 7, read_only = 8, is_signed = 16;

// What a warp's access takes: of shared memory the cycles of its 32 banks, of device memory sectors of 32 bytes.
void count_access(warp& w, std::uint64_t const (&address)[32], std::size_t bytes, bool in_shared) {
  if (!counting()) return;
  access_tally& t = in_shared ? tallies()[w.now].shared : tallies()[w.now].device;
  if (in_shared) {
    unsigned const lanes = bytes == 16 ? 8 : (bytes == 8 ? 16 : 32);
    for (unsigned first = 0; first < 32; first += lanes) {
      std::array<std::vector<std::uint64_t>, 32> banks;
      std::vector<std::uint64_t> all;
      for (unsigned l = first; l < first + lanes; ++l) {
        if ((w.mask >> l & 1) == 0) continue;
        for (std::uint64_t word = address[l] / 4; word <= (address[l] + bytes - 1) / 4; ++word) {
          all.push_back(word);
          auto& bank = banks[word % 32];
          if (std::find(bank.begin(), bank.end(), word) == bank.end()) bank.push_back(word);
        }
      }
      if (all.empty()) continue;
      std::sort(all.begin(), all.end());
      auto const distinct = static_cast<std::size_t>(std::unique(all.begin(), all.end()) - all.begin());
      std::size_t most = 0;
      for (auto const& bank : banks) most = std::max(most, bank.size());
      t.taken += most;
      t.least += (distinct + 31) / 32;
    }
  } else {
    std::vector<std::uint64_t> sectors, all;
    each_lane(w, [&](unsigned l) {
      for (std::uint64_t s = address[l] / 32; s <= (address[l] + bytes - 1) / 32; ++s) sectors.push_back(s);
      all.push_back(address[l]);
    });
    std::sort(sectors.begin(), sectors.end());
    std::sort(all.begin(), all.end());
    auto const distinct = static_cast<std::size_t>(std::unique(all.begin(), all.end()) - all.begin());
    t.taken += static_cast<std::uint64_t>(std::unique(sectors.begin(), sectors.end()) - sectors.begin());
    t.least += (distinct * bytes + 31) / 32;
  }
}

struct place {
  unsigned char* at;
  space where;
  std::uint64_t address;
};
place find(warp& w, instruction const& i, unsigned lane, std::uint64_t address, std::size_t bytes) {
  auto where = static_cast<space>(i.extra[3] & space_bits);
  if (address % bytes != 0) stop(w, lane, "an access of " + std::to_string(bytes) + " bytes at " + hexadecimal(address) + " is not aligned");
  if (where == parameters) {
    if (address + bytes > w.home->parameters.size()) stop(w, lane, "reads behind the parameters");
    return {w.home->parameters.data() + address, where, address};
  }
  if (where == generic) {
    auto const base = reinterpret_cast<std::uint64_t>(w.home->shared), mine = reinterpret_cast<std::uint64_t>(w.local.data());
    if (address >= base && address < base + w.home->shared_bytes) {
      where = shared;
      address -= base;
    } else if (address >= reinterpret_cast<std::uint64_t>(w.home->parameters.data()) &&
               address + bytes <= reinterpret_cast<std::uint64_t>(w.home->parameters.data()) + w.home->parameters.size()) {
      return {reinterpret_cast<unsigned char*>(address), parameters, address};
    } else {
      where = address >= mine && address < mine + w.local.size() ? local : global;
    }
  }
  if (where == shared) {
    check_shared(w, lane, address, bytes);
    return {w.home->shared + address, where, address};
  }
  if (where == local) {
    std::uint64_t const mine = w.lanes(local_base)[lane];
    if (address < mine || address + bytes > mine + w.code->local_bytes) stop(w, lane, "an access outside the thread's own memory");
  }
  return {reinterpret_cast<unsigned char*>(address), where, address};
}

// extra: offset, bytes of an element, elements, flags. Slots: what is loaded, the address.
void load(warp& w, instruction const& i) {
  auto const size = static_cast<std::size_t>(i.extra[1]), count = static_cast<std::size_t>(i.extra[2]);
  std::uint64_t const* const base = w.lanes(i.at[count]);
  std::uint64_t addresses[32] = {}, loaded[4][32];
  space where = parameters;
  each_lane(w, [&](unsigned l) {
    place const p = find(w, i, l, base[l] + static_cast<std::uint64_t>(i.extra[0]), size * count);
    where = p.where;
    addresses[l] = p.address;
    if (p.where == shared) reads_shared(w, l, p.address, size * count);
    if (p.where == global) touch_global(w, l, p.address, size * count, false, (i.extra[3] & read_only) != 0);
    for (std::size_t n = 0; n < count; ++n) {
      std::uint64_t v = 0;
      std::memcpy(&v, p.at + n * size, size);
      if ((i.extra[3] & is_signed) != 0 && size < 8) {
        unsigned const unused = 64 - 8 * static_cast<unsigned>(size);
        v = static_cast<std::uint64_t>(static_cast<std::int64_t>(v << unused) >> unused);
      }
      loaded[n][l] = v;
    }
  });
  for (std::size_t n = 0; n < count; ++n) each_lane(w, [&](unsigned l) { w.lanes(i.at[n])[l] = loaded[n][l]; });
  if (where == shared || where == global) count_access(w, addresses, size * count, where == shared);
}
// Slots: the address, what is stored.
void store(warp& w, instruction const& i) {
  auto const size = static_cast<std::size_t>(i.extra[1]), count = static_cast<std::size_t>(i.extra[2]);
  std::uint64_t const* const base = w.lanes(i.at[0]);
  std::uint64_t addresses[32] = {};
  space where = parameters;
  each_lane(w, [&](unsigned l) {
    place const p = find(w, i, l, base[l] + static_cast<std::uint64_t>(i.extra[0]), size * count);
    where = p.where;
    addresses[l] = p.address;
    if (p.where == global) range_of(w, l, p.address, size * count);
    bool same = true;
    for (std::size_t n = 0; n < count; ++n) same = same && std::memcmp(p.at + n * size, &w.lanes(i.at[1 + n])[l], size) == 0;
    if (p.where == shared) writes_shared(w, l, p.address, size * count, false, same);
    if (p.where == global) touch_global(w, l, p.address, size * count, true, false, same);
    for (std::size_t n = 0; n < count; ++n) std::memcpy(p.at + n * size, &w.lanes(i.at[1 + n])[l], size);
  });
  if (where == shared || where == global) count_access(w, addresses, size * count, where == shared);
}

enum change : std::int64_t { add, least, most, exchange, compare_and_swap, bit_and, bit_or, bit_xor };
// Slots: the old value (atom alone), the address, operands. extra: offset, bytes, change and twice 16 whether signed or floating, flags.
void atomic(warp& w, instruction const& i) {
  auto const size = static_cast<std::size_t>(i.extra[1]);
  std::int64_t const what = i.extra[2] & 15;
  bool const sign = (i.extra[2] & 16) != 0, floating = (i.extra[2] & 32) != 0;
  std::size_t const from = i.written;
  each_lane(w, [&](unsigned l) {
    place const p = find(w, i, l, w.lanes(i.at[from])[l] + static_cast<std::uint64_t>(i.extra[0]), size);
    if (p.where == global) {
      range_of(w, l, p.address, size);
      if (w.home->early && (w.waited >> l & 1) == 0) stop(w, l, "a kernel that was launched early changes memory before it waits for earlier work");
      w.home->drew_ticket = true;
    }
    std::uint64_t old = 0;
    std::memcpy(&old, p.at, size);
    std::uint64_t const b = w.lanes(i.at[from + 1])[l];
    std::uint64_t next = b;
    auto const smaller = [&](std::uint64_t x, std::uint64_t y) {
      if (sign) return size == 4 ? get<std::int32_t>(x) < get<std::int32_t>(y) : get<std::int64_t>(x) < get<std::int64_t>(y);
      return size == 4 ? get<std::uint32_t>(x) < get<std::uint32_t>(y) : x < y;
    };
    switch (what) {
      case add:
        next = floating ? (size == 4 ? put(get<float>(old) + get<float>(b)) : put(get<double>(old) + get<double>(b))) : old + b;
        break;
      case least: next = smaller(b, old) ? b : old; break;
      case most: next = smaller(old, b) ? b : old; break;
      case compare_and_swap: next = size == 4 ? (get<std::uint32_t>(old) == get<std::uint32_t>(b) ? w.lanes(i.at[from + 2])[l] : old) : (old == b ? w.lanes(i.at[from + 2])[l] : old); break;
      case bit_and: next = old & b; break;
      case bit_or: next = old | b; break;
      case bit_xor: next = old ^ b; break;
      default: break;
    }
    std::memcpy(p.at, &next, size);
    if (i.written != 0) w.lanes(i.at[0])[l] = old;
  });
}

void to_shared_space(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) { w.lanes(i.at[0])[l] = w.lanes(i.at[1])[l] - reinterpret_cast<std::uint64_t>(w.home->shared); });
}
void from_shared_space(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) { w.lanes(i.at[0])[l] = w.lanes(i.at[1])[l] + reinterpret_cast<std::uint64_t>(w.home->shared); });
}
void from_parameters(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) { w.lanes(i.at[0])[l] = w.lanes(i.at[1])[l] + reinterpret_cast<std::uint64_t>(w.home->parameters.data()); });
}
void same_address(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) { w.lanes(i.at[0])[l] = w.lanes(i.at[1])[l]; });
}

// Slots: to, from, bytes that are read. extra: offset, bytes, offset of the source.
void start_copy(warp& w, instruction const& i) {
  std::uint64_t to_addresses[32] = {}, addresses[32] = {};
  std::uint32_t reading = 0;
  each_lane(w, [&](unsigned l) {
    std::uint64_t const to = get<std::uint32_t>(w.lanes(i.at[0])[l]) + static_cast<std::uint64_t>(i.extra[0]),
                        from = w.lanes(i.at[1])[l] + static_cast<std::uint64_t>(i.extra[2]);
    std::int64_t const read = i.at.size() > 2 ? get<std::int32_t>(w.lanes(i.at[2])[l]) : i.extra[1];
    if (read < 0 || read > i.extra[1]) stop(w, l, "a copy that reads more than it writes");
    auto const bytes = static_cast<std::size_t>(i.extra[1]);
    if (to % bytes != 0 || (read > 0 && from % bytes != 0)) stop(w, l, "a copy that is not aligned");
    if (read > 0) {
      touch_global(w, l, from, static_cast<std::size_t>(read), false, false);
      reading |= 1U << l;
    }
    writes_shared(w, l, to, bytes, true);
    for (std::size_t n = to / 2; n < (to + bytes) / 2; ++n) ++w.home->shadow[n].copies;
    w.copies[l].push_back({to, reinterpret_cast<void const*>(from), i.extra[1], read, w.open_copies[l]});
    to_addresses[l] = to;
    addresses[l] = from;
  });
  std::uint32_t const all = w.mask;
  count_access(w, to_addresses, static_cast<std::size_t>(i.extra[1]), true);
  w.mask = reading;
  if (reading != 0) count_access(w, addresses, static_cast<std::size_t>(i.extra[1]), false);
  w.mask = all;
}
void close_copies(warp& w, instruction const&) {
  each_lane(w, [&](unsigned l) { ++w.open_copies[l]; });
}
void wait_copies(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) { settle_copies(w, l, static_cast<int>(i.extra[0])); });
}

void wait_for_earlier(warp& w, instruction const&) { w.waited |= w.mask; }
void warp_barrier(warp& w, instruction const&) { ++w.barriers; }
void proxy_fence(warp& w, instruction const&) { ++w.fences; }
void nothing(warp&, instruction const&) {}
void trap(warp& w, instruction const&) { stop(w, static_cast<unsigned>(__builtin_ctz(w.mask)), "trap"); }

}  // namespace

void settle_copies(warp& w, unsigned lane, int pending) {
  auto& copies = w.copies[lane];
  std::size_t done = 0;
  for (; done < copies.size() && copies[done].group < w.open_copies[lane] - pending; ++done) {
    pending_copy const& copy = copies[done];
    auto const bytes = static_cast<std::size_t>(copy.bytes);
    for (std::size_t n = copy.to / 2; n < (copy.to + bytes) / 2; ++n) --w.home->shadow[n].copies;
    writes_shared(w, lane, copy.to, bytes, true);
    std::memset(w.home->shared + copy.to, 0, bytes);
    if (copy.read > 0) std::memcpy(w.home->shared + copy.to, copy.from, static_cast<std::size_t>(copy.read));
  }
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(done));
}

bool build_memory(kernel& in, instruction& to, strings const& parts, strings const& operands) {
  std::string const &name = parts[0], &last = parts.back();
  auto const where = [&] {
    return has(parts, "param") ? parameters : has(parts, "shared") || has(parts, "shared::cta") ? shared : has(parts, "local") ? local : has(parts, "global") ? global : generic;
  };
  auto const size_of = [](std::string const& t) { return std::stol(t.substr(t.find_first_of("0123456789"))) / 8; };
  if (name == "ld" || name == "st") {
    to.extra[1] = size_of(last);
    to.extra[2] = has(parts, "v2") ? 2 : (has(parts, "v4") ? 4 : 1);
    to.extra[3] = where() | (has(parts, "nc") ? read_only : 0) | (last[0] == 's' ? is_signed : 0);
    strings const values = pieces(operands[name == "ld" ? 0 : 1]);
    if (name == "ld") {
      to.run = load;
      to.written = static_cast<unsigned>(values.size());
      for (std::string const& value : values) to.at.push_back(slot_of(in, value));
      address_of(in, to, operands[1]);
    } else {
      to.run = store;
      address_of(in, to, operands[0]);
      for (std::string const& value : values) to.at.push_back(slot_of(in, value));
    }
    return true;
  }
  if (name == "atom" || name == "red") {
    static strings const names{"add", "min", "max", "exch", "cas", "and", "or", "xor"};
    to.extra[1] = size_of(last);
    to.extra[2] = -1;
    for (std::size_t n = 0; n < names.size(); ++n)
      if (has(parts, names[n].c_str())) to.extra[2] = static_cast<std::int64_t>(n);
    if (to.extra[2] < 0) return false;
    to.extra[2] |= (last[0] == 's' ? 16 : 0) | (last[0] == 'f' ? 32 : 0);
    to.extra[3] = where();
    to.run = atomic;
    std::size_t from = 0;
    if (name == "atom") {
      to.at.push_back(slot_of(in, operands[0]));
      to.written = 1;
      from = 1;
    }
    address_of(in, to, operands[from]);
    for (std::size_t n = from + 1; n < operands.size(); ++n) to.at.push_back(slot_of(in, operands[n]));
    return true;
  }
  if (name == "cvta") {
    to.run = has(parts, "param") ? from_parameters : !has(parts, "shared") ? same_address : (has(parts, "to") ? to_shared_space : from_shared_space);
    to.written = 1;
    to.at = {slot_of(in, operands[0]), slot_of(in, operands[1])};
    return true;
  }
  if (name == "cp" && has(parts, "async")) {
    if (has(parts, "commit_group")) return to.run = close_copies, true;
    if (has(parts, "wait_group") || has(parts, "wait_all")) {
      to.extra[0] = operands.empty() ? 0 : std::stol(operands[0]);
      to.run = wait_copies;
      return true;
    }
    if (!has(parts, "global")) return false;
    address_of(in, to, operands[1]);
    std::int64_t const source = to.extra[0];
    address_of(in, to, operands[0]);
    to.at = {to.at[1], to.at[0]};
    to.extra[1] = std::stol(operands[2], nullptr, 0);
    to.extra[2] = source;
    if (operands.size() > 3) to.at.push_back(slot_of(in, operands[3]));
    to.run = start_copy;
    return true;
  }
  if (name == "griddepcontrol") return to.run = has(parts, "wait") ? wait_for_earlier : nothing, true;
  if (name == "bar" && has(parts, "warp")) {
    std::uint64_t mask = 0;
    unsigned const slot = slot_of(in, operands[0]);
    for (auto const& [constant, value] : in.constants)
      if (constant == slot) mask = value;
    if (get<std::uint32_t>(mask) != 0xffffffffU) return false;
    to.run = warp_barrier;
    to.together = true;
    return true;
  }
  if (name == "fence" && has(parts, "proxy")) return to.run = proxy_fence, true;
  if (name == "membar" || name == "fence" || name == "prefetch" || name == "nanosleep") return to.run = nothing, true;
  if (name == "trap") return to.run = trap, true;
  return false;
}

}  // namespace ptx
