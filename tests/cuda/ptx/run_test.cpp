#include "cuda/ptx/kernels.hpp"

#include <doctest/doctest.h>

namespace ptx_run_tests {

using namespace ptx_tests;

bool has(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }

TEST_CASE("ptx/run: lanes that part meet again") {
  // Odd lanes loop as often as their number says; all of them exchange behind it.
  auto const made = run(R"(
    and.b32 %r1, %r0, 1;
    mov.u32 %r2, 0;
    setp.eq.u32 %p1, %r1, 0;
    @%p1 bra EVEN;
  AGAIN:
    add.u32 %r2, %r2, 3;
    add.u32 %r3, %r2, 0;
    mul.lo.u32 %r4, %r0, 3;
    setp.lt.u32 %p2, %r2, %r4;
    @%p2 bra AGAIN;
    bra.uni MET;
  EVEN:
    mov.u32 %r2, 1000;
  MET:
    shfl.sync.bfly.b32 %r5|%p3, %r2, 1, 31, -1;
    st.global.u32 [%mine], %r5;)");
  for (std::uint32_t l = 0; l < 32; ++l) CHECK(made[l] == (l % 2 == 0 ? 3 * (l + 1) : 1000));
}

TEST_CASE("ptx/run: an exchange that some lanes miss") {
  CHECK(has(complaint(kernel_of(R"(
    setp.lt.u32 %p1, %r0, 5;
    @%p1 bra OUT;
    shfl.sync.bfly.b32 %r5|%p3, %r0, 1, 31, -1;
  OUT:)"), 32), "of which lanes have ended"));
  CHECK(has(complaint(kernel_of(R"(
    setp.lt.u32 %p1, %r0, 5;
    @%p1 bra OTHER;
    shfl.sync.bfly.b32 %r5|%p3, %r0, 1, 31, -1;
    bra.uni OUT;
  OTHER:
    shfl.sync.bfly.b32 %r5|%p3, %r0, 2, 31, -1;
  OUT:)"), 32), "wait at different places"));
}

TEST_CASE("ptx/run: blocks and threads have their numbers, a block of less than a warp too") {
  auto const code = kernel_of(R"(
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mad.lo.u32 %r3, %r1, %r2, %r0;
    mul.wide.u32 %rd1, %r3, 4;
    add.s64 %rd1, %to, %rd1;
    st.global.u32 [%rd1], %r3;)");
  auto const made = run(code, 20, std::vector<std::uint32_t>(60, 7), false, 3);
  for (std::uint32_t n = 0; n < 60; ++n) CHECK(made[n] == n);
}

TEST_CASE("ptx/run: what a kernel that begins early may not do") {
  char const* const wait = "griddepcontrol.wait;\n";
  std::string const store = "st.global.u32 [%mine], %r0;\n";
  CHECK(complaint(kernel_of(wait + store), 64, true) == "nothing");
  CHECK(complaint(kernel_of(store), 64, false) == "nothing");
  CHECK(has(complaint(kernel_of(store + wait), 64, true), "writes before it waits"));
  CHECK(has(complaint(kernel_of("add.u32 %r1, %r0, 1;"), 64, true), "ended without waiting"));

  // What the launch before wrote, read before and behind the wait.
  void* device = nullptr;
  cudaMalloc(&device, 256);
  ptx::argument const given{&device, sizeof device, alignof(void*)};
  auto const writer = kernel_of(store), behind = kernel_of(wait + std::string("ld.global.u32 %r1, [%mine];")),
             before = kernel_of(std::string("ld.global.u32 %r1, [%mine];") + wait);
  ptx::run(writer, dim3(1), 64, 0, false, &given, 1);
  ptx::run(behind, dim3(1), 64, 0, true, &given, 1);
  ptx::run(writer, dim3(1), 64, 0, false, &given, 1);
  CHECK_THROWS_AS(ptx::run(before, dim3(1), 64, 0, true, &given, 1), ptx::violation);
  cudaFree(device);
}

TEST_CASE("ptx/run: what is not known is refused when it is read") {
  CHECK_THROWS_WITH(kernel_of("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f1, %f2}];"), doctest::Contains("no handler"));
  CHECK_THROWS_WITH(kernel_of("add.u32 %r1, %r2, unheard;"), doctest::Contains("unknown name unheard"));
  CHECK_THROWS_WITH(kernel_of("bar.sync 1, 64;"), doctest::Contains("barriers with numbers"));
}

}  // namespace ptx_run_tests
