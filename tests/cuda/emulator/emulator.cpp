#include "cuda_runtime.h"

#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SLIMTRIM_FIBER_LEAVES(save, bottom, size) __sanitizer_start_switch_fiber(save, bottom, size)
#define SLIMTRIM_FIBER_ARRIVES(saved) __sanitizer_finish_switch_fiber(saved, nullptr, nullptr)
#else
#define SLIMTRIM_FIBER_LEAVES(save, bottom, size) static_cast<void>(0)
#define SLIMTRIM_FIBER_ARRIVES(saved) static_cast<void>(0)
#endif

// Changes from one stack to another. swapcontext of the C library asks the kernel for the signal mask each time, which
// takes a hundred times as long, so it serves other processors only.
#if defined(__x86_64__)
extern "C" void slimtrim_emulator_switch(void** save, void* load);
asm(R"(
.text
.type slimtrim_emulator_switch, @function
slimtrim_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
namespace emulator {
namespace {
struct stack_state {
  void* top = nullptr;
};
void prepare(stack_state& state, unsigned char* stack, std::size_t bytes, void (*start)()) {
  auto const end = reinterpret_cast<std::uintptr_t>(stack + bytes) / 16 * 16;
  auto* const slots = reinterpret_cast<void**>(end) - 8;  // six registers, the address to start at, and none to return to
  for (int i = 0; i < 8; ++i) slots[i] = nullptr;
  slots[6] = reinterpret_cast<void*>(start);
  state.top = slots;
}
void change(stack_state& from, stack_state& to) { slimtrim_emulator_switch(&from.top, to.top); }
}  // namespace
}  // namespace emulator
#else
#include <ucontext.h>
namespace emulator {
namespace {
using stack_state = ucontext_t;
void prepare(stack_state& state, unsigned char* stack, std::size_t bytes, void (*start)()) {
  getcontext(&state);
  state.uc_stack.ss_sp = stack;
  state.uc_stack.ss_size = bytes;
  state.uc_link = nullptr;
  makecontext(&state, start, 0);
}
void change(stack_state& from, stack_state& to) { swapcontext(&from, &to); }
}  // namespace
}  // namespace emulator
#endif

namespace emulator {

namespace {

enum class waiting { nothing, for_warp, for_block, done };

constexpr std::size_t stack_bytes = 128 * 1024;

struct pending_copy {
  void* to;
  void const* from;
  bool valid;
  int group;
};

struct fiber {
  std::vector<pending_copy> copies;
  int open_group = 0;
  stack_state context{};
  std::unique_ptr<unsigned char[]> stack;
  waiting state = waiting::nothing;
  bool waited = false;
  void* sanitizer_stack = nullptr;
};

struct warp_slots {
  alignas(32) unsigned char slot[32][32];
};

struct machine {
  std::vector<fiber> fibers;
  std::vector<warp_slots> warps;
  std::vector<unsigned char> shared;
  unsigned char* shared_start = nullptr;
  stack_state scheduler{};
  void* scheduler_stack = nullptr;
  void const* scheduler_bottom = nullptr;
  std::size_t scheduler_size = 0;
  unsigned current = 0, threads = 0;
  void (*thread)(void*) = nullptr;
  void* argument = nullptr;
  bool early = false;
  bool reversed = std::getenv("SLIMTRIM_EMULATOR_REVERSED") != nullptr;
};

machine& self() {
  static machine instance;
  return instance;
}

[[noreturn]] void stop(char const* why) {
  std::fprintf(stderr, "emulator: block (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, why);
  std::abort();
}

void enter() {
  machine& m = self();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_bottom, &m.scheduler_size);
#endif
  m.thread(m.argument);
  fiber& me = m.fibers[m.current];
  if (m.early && !me.waited) stop("a kernel that was launched early ended without waiting for earlier work");
  me.state = waiting::done;
  SLIMTRIM_FIBER_LEAVES(nullptr, m.scheduler_bottom, m.scheduler_size);
  change(me.context, m.scheduler);
}

void wait(waiting what) {
  machine& m = self();
  fiber& me = m.fibers[m.current];
  me.state = what;
  SLIMTRIM_FIBER_LEAVES(&me.sanitizer_stack, m.scheduler_bottom, m.scheduler_size);
  change(me.context, m.scheduler);
  SLIMTRIM_FIBER_ARRIVES(me.sanitizer_stack);
}

void resume(unsigned t) {
  machine& m = self();
  m.current = t;
  threadIdx = dim3(t, 0, 0);
  SLIMTRIM_FIBER_LEAVES(&m.scheduler_stack, m.fibers[t].stack.get(), stack_bytes);
  change(m.scheduler, m.fibers[t].context);
  SLIMTRIM_FIBER_ARRIVES(m.scheduler_stack);
}

bool release(unsigned first, unsigned last, waiting what, bool exited_count) {
  machine& m = self();
  unsigned arrived = 0, finished = 0;
  for (unsigned t = first; t < last; ++t) {
    arrived += m.fibers[t].state == what;
    finished += m.fibers[t].state == waiting::done;
  }
  if (arrived == 0 || arrived + finished < last - first) return false;
  if (!exited_count && (finished > 0 || last - first < 32)) stop("a warp exchange without all 32 lanes");
  for (unsigned t = first; t < last; ++t)
    if (m.fibers[t].state == what) m.fibers[t].state = waiting::nothing;
  return true;
}

void run_block() {
  machine& m = self();
  std::memset(m.shared_start, 0xff, m.shared.size() - 1024);
  for (unsigned t = 0; t < m.threads; ++t) {
    fiber& f = m.fibers[t];
    f.state = waiting::nothing;
    f.copies.clear();
    f.open_group = 0;
    f.waited = false;
    prepare(f.context, f.stack.get(), stack_bytes, enter);
  }
  for (;;) {
    bool ran = false, all_done = true;
    for (unsigned i = 0; i < m.threads; ++i) {
      unsigned const t = m.reversed ? m.threads - 1 - i : i;
      if (m.fibers[t].state == waiting::nothing) {
        resume(t);
        ran = true;
      }
      all_done = all_done && m.fibers[t].state == waiting::done;
    }
    if (all_done) return;
    for (unsigned first = 0; first < m.threads; first += 32)
      ran = release(first, first + 32 < m.threads ? first + 32 : m.threads, waiting::for_warp, false) || ran;
    ran = release(0, m.threads, waiting::for_block, true) || ran;
    if (!ran) stop("threads wait for each other at different barriers");
  }
}

}  // namespace

void run_grid(dim3 blocks, unsigned threads, std::size_t shared, void (*thread)(void*), void* argument, bool early) {
  machine& m = self();
  m.early = early;
  if (threads == 0 || threads > 1024) stop("1 to 1024 threads a block");
  while (m.fibers.size() < threads) {
    m.fibers.emplace_back();
    m.fibers.back().stack.reset(new unsigned char[stack_bytes]);
  }
  m.warps.resize((threads + 31) / 32);
  if (shared > 227 * 1024) stop("more shared memory than a block may have");
  m.shared.resize(shared + 1024);
  auto const address = reinterpret_cast<std::uintptr_t>(m.shared.data());
  m.shared_start = m.shared.data() + (1024 - address % 1024) % 1024;
  m.threads = threads;
  m.thread = thread;
  m.argument = argument;
  gridDim = blocks;
  blockDim = dim3(threads);
  for (unsigned z = 0; z < blocks.z; ++z)
    for (unsigned y = 0; y < blocks.y; ++y)
      for (unsigned x = 0; x < blocks.x; ++x) {
        blockIdx = dim3(x, y, z);
        run_block();
      }
}

void wait_for_block() { wait(waiting::for_block); }
void wait_for_warp() { wait(waiting::for_warp); }
void wait_for_earlier_work() { self().fibers[self().current].waited = true; }
unsigned char* shared_bytes() { return self().shared_start; }
unsigned char (*exchange_slots())[32] { return self().warps[self().current / 32].slot; }
int lane() { return static_cast<int>(self().current % 32); }
void start_copy(void* to, void const* from, bool valid) {
  fiber& me = self().fibers[self().current];
  me.copies.push_back({to, from, valid, me.open_group});
}
void close_copies() { ++self().fibers[self().current].open_group; }
void wait_copies(int pending) {
  fiber& me = self().fibers[self().current];
  std::size_t done = 0;
  for (; done < me.copies.size() && me.copies[done].group < me.open_group - pending; ++done) {
    pending_copy const& copy = me.copies[done];
    if (copy.valid) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace emulator

cudaError_t cudaGetLastError() { return cudaSuccess; }
char const* cudaGetErrorName(cudaError_t) { return "emulated error"; }
char const* cudaGetErrorString(cudaError_t) { return "out of memory"; }
static std::size_t bytes_in_use = 0;
static std::uint64_t changes = 0;
static std::map<std::uintptr_t, emulator::device_range> ranges;
namespace emulator {
device_range const* range_of(void const* address) {
  auto const at = reinterpret_cast<std::uintptr_t>(address);
  auto const behind = ranges.upper_bound(at);
  if (behind == ranges.begin()) return nullptr;
  device_range const& range = std::prev(behind)->second;
  return at < range.first + range.bytes ? &range : nullptr;
}
std::uint64_t range_changes() { return changes; }
void mark_written(void const* address, std::size_t bytes) {
  device_range const* const range = range_of(address);
  if (range == nullptr) return;
  range->written.resize(range->bytes);
  auto const first = static_cast<std::ptrdiff_t>(reinterpret_cast<std::uintptr_t>(address) - range->first);
  std::fill_n(range->written.begin() + first, std::min(bytes, range->bytes - static_cast<std::size_t>(first)), static_cast<unsigned char>(1));
}
}  // namespace emulator
cudaError_t cudaMalloc(void** to, std::size_t bytes) {
  *to = nullptr;
  if (bytes > (std::size_t{1} << 40) || posix_memalign(to, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  std::memset(*to, 0xff, bytes);
  bytes_in_use += malloc_usable_size(*to);
  ++changes;
  auto const first = reinterpret_cast<std::uintptr_t>(*to);
  ranges[first] = {first, bytes, nullptr, {}};
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  bytes_in_use -= malloc_usable_size(data);
  ++changes;
  ranges.erase(reinterpret_cast<std::uintptr_t>(data));
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** to, std::size_t bytes, cudaMemPool_t, cudaStream_t) {
  return cudaMalloc(to, bytes);
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t) { return cudaFree(data); }
cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  emulator::mark_written(to, bytes);
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  emulator::mark_written(to, bytes);
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
// By where they begin; a device refuses what is fixed already, and to let go of what is not.
static std::map<std::uintptr_t, std::size_t> fixed_ranges;
cudaError_t cudaHostRegister(void* data, std::size_t bytes, unsigned) {
  auto const begin = reinterpret_cast<std::uintptr_t>(data);
  for (auto const& [first, size] : fixed_ranges)
    if (begin < first + size && first < begin + bytes) return cudaErrorInvalidValue;
  fixed_ranges.emplace(begin, bytes);
  return cudaSuccess;
}
cudaError_t cudaHostUnregister(void* data) {
  return fixed_ranges.erase(reinterpret_cast<std::uintptr_t>(data)) == 1 ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, cudaMemPoolProps const*) {
  *pool = nullptr;
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* left, std::size_t* all) {
  *all = std::size_t{1} << 40;
  *left = *all - bytes_in_use;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 4 : (attribute == cudaDevAttrComputeCapabilityMajor ? 9 : 0);
  return cudaSuccess;
}
