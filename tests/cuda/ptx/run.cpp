#include "run.hpp"

#include "memory.hpp"
#include "symbols.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>

namespace ptx {

namespace {

constexpr std::size_t nobodys_shared = 1024;

launch_state launch;
std::vector<tally> now_counted;
void add(access_tally& to, access_tally const& from) {
  to.taken += from.taken;
  to.least += from.least;
}
struct total {
  std::uint64_t launches = 0;
  std::vector<tally> of;
};

struct library {
  std::map<std::string, std::string> texts;  // by the name as C++ writes it: compilers mangle what is static differently
  std::map<std::string, std::unique_ptr<kernel>> kernels;
  std::map<std::string, total> totals;

  library() {
    std::stringstream paths(std::getenv("SLIMTRIM_PTX"));
    for (std::string path; std::getline(paths, path, ':');) {
      std::vector<std::filesystem::path> files{path};
      if (std::filesystem::is_directory(path)) {
        files.clear();
        for (auto const& entry : std::filesystem::directory_iterator(path))
          if (entry.path().extension() == ".ptx") files.push_back(entry.path());
      }
      std::sort(files.begin(), files.end());
      for (auto const& file : files) {
        std::ifstream in(file);
        std::string const text{std::istreambuf_iterator<char>(in), {}};
        for (auto& [name, entry] : entries(text)) texts.emplace(demangled(name), std::move(entry));
      }
    }
    if (texts.empty())
      throw violation(std::string("SLIMTRIM_PTX: no kernels in ") + std::getenv("SLIMTRIM_PTX"));
  }
  ~library() {
    if (!counting()) return;
    for (auto const& [name, t] : totals) {
      std::uint64_t executed = 0;
      access_tally shared, device;
      std::vector<instruction> const& code = kernels.at(name)->code;
      for (std::size_t n = 0; n < t.of.size(); ++n) {
        executed += t.of[n].carried_out;
        add(shared, t.of[n].shared);
        add(device, t.of[n].device);
      }
      std::printf("%s\n  launches %llu, instructions of warps %llu, shared memory %llu cycles (least %llu), device memory %llu sectors (least %llu)\n",
                  name.c_str(), static_cast<unsigned long long>(t.launches), static_cast<unsigned long long>(executed),
                  static_cast<unsigned long long>(shared.taken), static_cast<unsigned long long>(shared.least),
                  static_cast<unsigned long long>(device.taken), static_cast<unsigned long long>(device.least));
      std::map<std::string, std::uint64_t> by_operation;
      for (std::size_t n = 0; n < t.of.size(); ++n) {
        std::string const& line = code[n].text;
        std::size_t const start = line[0] == '@' ? line.find(' ') + 1 : 0;
        by_operation[line.substr(start, line.find(' ', start) - start)] += t.of[n].carried_out;
      }
      std::vector<std::pair<std::uint64_t, std::string>> most;
      for (auto const& [operation, count] : by_operation) most.emplace_back(count, operation);
      std::sort(most.rbegin(), most.rend());
      std::printf("  ");
      for (std::size_t n = 0; n < std::min<std::size_t>(most.size(), 12); ++n)
        std::printf("%s %llu%s", most[n].second.c_str(), static_cast<unsigned long long>(most[n].first), n + 1 < std::min<std::size_t>(most.size(), 12) ? ", " : "\n");
      if (std::getenv("SLIMTRIM_PTX_COUNTS") == std::string("lines"))
        for (std::size_t n = 0; n < t.of.size(); ++n)
          std::printf("    %6zu %12llu  %s\n", n, static_cast<unsigned long long>(t.of[n].carried_out), code[n].text.substr(0, 100).c_str());
      for (std::size_t n = 0; n < t.of.size(); ++n)
        for (access_tally const& one : {t.of[n].shared, t.of[n].device})
          if (one.taken > one.least + one.least / 4)
            std::printf("    %10llu for %10llu: %s\n", static_cast<unsigned long long>(one.taken),
                        static_cast<unsigned long long>(one.least), code[n].text.substr(0, 100).c_str());
    }
  }

  kernel const& find(void const* address) {
    static std::map<void const*, kernel const*> known;
    if (auto const at = known.find(address); at != known.end()) return *at->second;
    std::string const name = name_of_function(address);
    auto const text = texts.find(name);
    if (text == texts.end()) throw violation("SLIMTRIM_PTX has no kernel " + name);
    auto& made = kernels[name];
    if (!made) made = std::make_unique<kernel>(parse(text->second));
    return *(known[address] = made.get());
  }
};
library& kernels() {
  static library instance;
  return instance;
}

struct block_state {
  block shared;
  std::vector<warp> warps;
};
block_state* running_block = nullptr;

// Runs until all lanes of the warp have ended (false) or stand at a barrier of the block (true).
bool run_to_barrier(warp& w) {
  std::vector<instruction> const& code = w.code->code;
  for (;;) {
    if (w.running == 0) {
      if (w.parked == 0) return false;
      unsigned const first = w.at[__builtin_ctz(w.parked)];
      for (std::uint32_t m = w.parked; m != 0; m &= m - 1)
        if (w.at[__builtin_ctz(m)] != first)
          stop(w, static_cast<unsigned>(__builtin_ctz(m)), "lanes of a warp wait at different places, others at: " + code[first].text);
      w.running = w.parked;
      w.parked = 0;
    }
    unsigned at = ~0U, others = ~0U;
    for (std::uint32_t m = w.running; m != 0; m &= m - 1) at = std::min(at, w.at[__builtin_ctz(m)]);
    w.mask = 0;
    for (std::uint32_t m = w.running; m != 0; m &= m - 1) {
      unsigned const l = static_cast<unsigned>(__builtin_ctz(m));
      if (w.at[l] == at) {
        w.mask |= 1U << l;
      } else {
        others = std::min(others, w.at[l]);
      }
    }
    std::uint32_t const together = w.mask;
    auto const leave_at = [&](std::uint32_t lanes, unsigned where) {
      for (std::uint32_t m = lanes; m != 0; m &= m - 1) w.at[__builtin_ctz(m)] = where;
    };
    for (;; ++at) {
      if (at >= others) {
        leave_at(together, at);
        break;
      }
      instruction const& i = code[at];
      w.now = at;
      w.mask = together;
      if (i.guard >= 0) {
        std::uint64_t const* const p = w.lanes(static_cast<unsigned>(i.guard));
        std::uint32_t held = 0;
        for (std::uint32_t m = together; m != 0; m &= m - 1) {
          auto const l = static_cast<unsigned>(__builtin_ctz(m));
          held |= static_cast<std::uint32_t>((p[l] & 1) != i.negated) << l;
        }
        w.mask = held;
      }
      ++now_counted[at].carried_out;
      if (w.code->has_products && i.text.find("wgmma.mma") == std::string::npos)
        for (std::size_t n = 0; n < i.written; ++n) w.written[i.at[n]] = 1;
      if (!w.products.empty() && i.run != nullptr)
        for (std::size_t n = 0; n < i.at.size(); ++n)
          if (w.under_way[i.at[n]] > (n < i.written ? 0 : 1) && i.text.find("wgmma") == std::string::npos)
            stop(w, 0, "touches a register of a product under way");
      if (i.then == flow::branch) {
        if (w.mask == 0) continue;
        if (w.mask == together && i.target < others && i.target > at) {
          at = i.target - 1;
          continue;
        }
        leave_at(together, at + 1);
        leave_at(w.mask, i.target);
        break;
      }
      if (i.then == flow::leave) {
        leave_at(together, at + 1);
        for (std::uint32_t m = w.mask; m != 0; m &= m - 1) {
          auto const l = static_cast<unsigned>(__builtin_ctz(m));
          if (w.home->early && (w.waited >> l & 1) == 0) stop(w, l, "a kernel that was launched early ended without waiting for earlier work");
        }
        if (!w.products.empty()) stop(w, 0, "ends with products under way");
        w.running &= ~w.mask;
        break;
      }
      if (i.together) {
        if (w.mask == 0) continue;
        if (w.mask != together) stop(w, static_cast<unsigned>(__builtin_ctz(w.mask)), "some lanes alone take part in what the whole warp does");
        if (together != (w.running | w.parked)) {
          leave_at(together, at);
          w.parked |= together;
          w.running &= ~together;
          break;
        }
        if (i.then == flow::barrier) {
          leave_at(together, at + 1);
          return true;
        }
        if (together != 0xffffffffU) stop(w, static_cast<unsigned>(__builtin_ctz(~together)), "an exchange of a warp of which lanes have ended");
        i.run(w, i);
        continue;
      }
      if (w.mask != 0) i.run(w, i);
    }
  }
}

void run_block(block_state& state) {
  block& b = state.shared;
  std::memset(b.shared, 0xff, b.shared_bytes);
  std::fill(b.shadow.begin(), b.shadow.end(), shared_shadow{});
  b.barriers = 1;
  b.drew_ticket = false;
  for (warp& w : state.warps) {
    auto const special = [&](unsigned slot, auto value) {
      for (unsigned l = 0; l < 32; ++l) w.lanes(slot)[l] = static_cast<std::uint64_t>(value(l));
    };
    special(ctaid_x, [&](unsigned) { return b.index[0]; });
    special(ctaid_y, [&](unsigned) { return b.index[1]; });
    special(ctaid_z, [&](unsigned) { return b.index[2]; });
    unsigned const lanes = std::min(32U, b.threads - w.number * 32);
    w.running = lanes == 32 ? 0xffffffffU : (1U << lanes) - 1;
    w.parked = w.waited = 0;
    w.barriers = w.fences = 1;
    std::fill(std::begin(w.at), std::end(w.at), 0U);
    for (auto& copies : w.copies) copies.clear();
    std::fill(std::begin(w.open_copies), std::end(w.open_copies), 0);
    w.products.clear();
    w.open_products = 0;
    std::fill(w.written.begin(), w.written.end(), static_cast<unsigned char>(1));
    std::fill(w.under_way.begin(), w.under_way.end(), static_cast<unsigned char>(0));
  }
  for (bool any = true; any;) {
    any = false;
    for (warp& w : state.warps)
      if (w.running != 0 || w.parked != 0) any = run_to_barrier(w) || any;
    ++b.barriers;
  }
}

}  // namespace

std::vector<tally>& tallies() { return now_counted; }
launch_state const& current_launch() { return launch; }
bool counting() {
  static bool const asked = std::getenv("SLIMTRIM_PTX_COUNTS") != nullptr;
  return asked;
}
std::uint32_t writer_fences(warp const&, unsigned number) { return running_block->warps[number].fences; }

void stop(warp const& w, unsigned lane, std::string const& why) {
  std::string const where = "block (" + std::to_string(w.home->index[0]) + ", " + std::to_string(w.home->index[1]) + ", " +
                            std::to_string(w.home->index[2]) + "), thread " + std::to_string(w.thread(lane));
  throw violation(demangled(w.code->name) + ": " + where + ", instruction " + std::to_string(w.now) + ": " + w.code->code[w.now].text + ": " + why);
}

bool available() {
  static bool const set = std::getenv("SLIMTRIM_PTX") != nullptr;
  return set;
}

void run(void const* address, dim3 blocks, unsigned threads, std::size_t shared_bytes, bool early, argument const* arguments, std::size_t count) {
  kernel const& code = kernels().find(address);
  run(code, blocks, threads, shared_bytes, early, arguments, count);
  total& t = kernels().totals[demangled(code.name)];
  ++t.launches;
  t.of.resize(code.code.size());
  for (std::size_t n = 0; n < t.of.size(); ++n) {
    t.of[n].carried_out += now_counted[n].carried_out;
    add(t.of[n].shared, now_counted[n].shared);
    add(t.of[n].device, now_counted[n].device);
  }
}

void run(kernel const& code, dim3 blocks, unsigned threads, std::size_t shared_bytes, bool early, argument const* arguments, std::size_t count) {
  launch_state const before = launch;
  ++launch.number;
  launch.early = early;
  launch.first_under_way = before.early ? before.first_under_way : before.number;

  block_state state;
  running_block = &state;
  block& b = state.shared;
  b.code = &code;
  b.threads = threads;
  b.early = early;
  b.parameters.resize(code.parameter_bytes);
  if (count != code.parameters.size()) throw violation(demangled(code.name) + " takes " + std::to_string(code.parameters.size()) + " parameters, not " + std::to_string(count));
  for (std::size_t n = 0; n < count; ++n) {
    parameter const& p = code.parameters[n];
    if (p.size != arguments[n].bytes && !(p.size > arguments[n].bytes && arguments[n].bytes == 1))
      throw violation(demangled(code.name) + ": parameter " + std::to_string(n) + " has " + std::to_string(p.size) + " bytes, not " + std::to_string(arguments[n].bytes));
    std::memcpy(b.parameters.data() + p.offset, arguments[n].value, arguments[n].bytes);
  }
  std::size_t const dynamic = (nobodys_shared + code.static_shared + code.dynamic_alignment - 1) / code.dynamic_alignment * code.dynamic_alignment;
  b.shared_bytes = dynamic + shared_bytes;
  if (b.shared_bytes - nobodys_shared > 227 * 1024) throw violation(demangled(code.name) + ": more shared memory than a block may have");
  b.storage.resize(b.shared_bytes + 2048);
  auto const base = reinterpret_cast<std::uintptr_t>(b.storage.data());
  b.shared = b.storage.data() + (1024 - base % 1024) % 1024;
  b.shadow.resize(b.shared_bytes / 2 + 1);

  now_counted.assign(code.code.size(), {});
  state.warps.resize((threads + 31) / 32);
  for (unsigned n = 0; n < state.warps.size(); ++n) {
    warp& w = state.warps[n];
    w.code = &code;
    w.home = &b;
    w.number = n;
    w.slots.resize(static_cast<std::size_t>(code.slots) * 32);
    w.under_way.resize(code.slots);
    w.written.resize(code.has_products ? code.slots : 0);
    auto const fill = [&](unsigned slot, std::uint64_t value) { std::fill_n(w.lanes(slot), 32, value); };
    for (auto const& [slot, value] : code.constants) fill(slot, value);
    for (unsigned const slot : code.dynamic_shared) fill(slot, dynamic);
    fill(ntid_x, threads);
    fill(ntid_y, 1);
    fill(ntid_z, 1);
    fill(nctaid_x, blocks.x);
    fill(nctaid_y, blocks.y);
    fill(nctaid_z, blocks.z);
    fill(warpid, n);
    w.local.resize(code.local_bytes * 32 + 16);
    auto const local = (reinterpret_cast<std::uint64_t>(w.local.data()) + 15) / 16 * 16;
    for (unsigned l = 0; l < 32; ++l) {
      w.lanes(laneid)[l] = l;
      w.lanes(tid_x)[l] = w.thread(l);
      w.lanes(local_base)[l] = local + code.local_bytes * l;
    }
  }
  for (unsigned z = 0; z < blocks.z; ++z)
    for (unsigned y = 0; y < blocks.y; ++y)
      for (unsigned x = 0; x < blocks.x; ++x) {
        b.number = (static_cast<std::uint64_t>(z) * blocks.y + y) * blocks.x + x;
        b.index[0] = x;
        b.index[1] = y;
        b.index[2] = z;
        run_block(state);
      }
  running_block = nullptr;
}

}  // namespace ptx
