#include "cuda/ptx/kernels.hpp"

#include <doctest/doctest.h>

namespace ptx_memory_tests {

using namespace ptx_tests;

bool has(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }

char const* const array = ".shared .align 16 .b8 held[1024];\n";
// The thread's own word of the array, and that of thread (its own + step) % 64.
std::string place(char const* step) {
  return std::string("mov.u32 %r10, held;\nshl.b32 %r11, %r0, 2;\nadd.u32 %r11, %r10, %r11;\nadd.u32 %r12, %r0, ") + step +
         ";\nand.b32 %r12, %r12, 63;\nshl.b32 %r12, %r12, 2;\nadd.u32 %r12, %r10, %r12;\n";
}

TEST_CASE("ptx/memory: threads read what others wrote, behind a barrier alone") {
  std::string const write = place("33") + "st.shared.u32 [%r11], %r0;\n", read = "ld.shared.u32 %r1, [%r12];\nst.global.u32 [%mine], %r1;\n";
  auto const made = run(write + "bar.sync 0;\n" + read, 64, array);
  for (std::uint32_t n = 0; n < 64; ++n) CHECK(made[n] == (n + 33) % 64);
  // The first warp runs on before the other has written.
  CHECK(has(complaint(kernel_of(write + read, array)), "reads shared memory that nobody wrote"));
  // A barrier of the warp does for lanes of one warp, not for others.
  CHECK(has(complaint(kernel_of(write + "bar.warp.sync -1;\n" + read, array)), "reads shared memory that nobody wrote"));
  std::string const near = place("1") + "and.b32 %r13, %r0, 31;\nsetp.eq.u32 %p1, %r13, 31;\n@%p1 mov.u32 %r12, %r11;\nst.shared.u32 [%r11], %r0;\n";
  CHECK(complaint(kernel_of(near + "bar.warp.sync -1;\n" + read, array)) == "nothing");
  CHECK(has(complaint(kernel_of(near + read, array)), "with no barrier between"));
}

TEST_CASE("ptx/memory: a write after others' reads, and two writes") {
  std::string const read = place("1") + "st.shared.u32 [%r11], %r0;\nbar.sync 0;\nld.shared.u32 %r1, [%r12];\n";
  CHECK(has(complaint(kernel_of(read + "st.shared.u32 [%r11], %r1;", array)), "read, with no barrier between"));
  CHECK(complaint(kernel_of(read + "bar.sync 0;\nst.shared.u32 [%r11], %r1;", array)) == "nothing");
  std::string const word = "mov.u32 %r10, held;\n";
  CHECK(has(complaint(kernel_of(word + "st.shared.u32 [%r10], %r0;", array)), "writes what thread 0 wrote"));
  CHECK(complaint(kernel_of(word + "mov.u32 %r1, 7;\nst.shared.u32 [%r10], %r1;", array)) == "nothing");
  CHECK(complaint(kernel_of(word + "mov.u32 %r1, 7;\natom.shared.add.u32 %r2, [%r10], %r1;", array)) == "nothing");
}

TEST_CASE("ptx/memory: asynchronous copies land when they are waited for") {
  std::string const start = "mov.u32 %r10, held;\nshl.b32 %r11, %r0, 4;\nadd.u32 %r11, %r10, %r11;\nand.b32 %r12, %r0, 3;\nmul.wide.u32 %rd1, %r12, 16;\n"
                            "add.s64 %rd1, %to, %rd1;\ncp.async.cg.shared.global [%r11], [%rd1], 16, 8;\ncp.async.commit_group;\n",
                    wait = "cp.async.wait_group 0;\n", read = "ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r11];\nadd.u32 %r1, %r1, %r2;\nadd.u32 %r1, %r1, %r3;\n"
                                                             "add.u32 %r1, %r1, %r4;\n",
                    out = "bar.sync 0;\nst.global.u32 [%mine], %r1;\n";
  std::vector<std::uint32_t> numbers(64);
  for (std::uint32_t n = 0; n < 64; ++n) numbers[n] = n * n + 1;
  auto const made = run(kernel_of(start + wait + read + out, array), 64, numbers);
  for (std::uint32_t n = 0; n < 64; ++n) CHECK(made[n] == numbers[n % 4 * 4] + numbers[n % 4 * 4 + 1]);  // 8 bytes, then zeros
  CHECK(has(complaint(kernel_of(start + read + out, array)), "reads what a copy under way writes"));
  CHECK(has(complaint(kernel_of(start + "st.shared.u32 [%r11], %r0;\n" + wait, array)), "writes what a copy under way writes"));
}

TEST_CASE("ptx/memory: accesses outside and across") {
  CHECK(has(complaint(kernel_of("st.global.u32 [%mine+4], %r0;")), "which is no device memory"));
  CHECK(has(complaint(kernel_of("st.global.u64 [%mine], %rd1;")), "is not aligned"));
  CHECK(has(complaint(kernel_of("mov.u64 %rd1, 4096;\nld.global.u32 %r1, [%rd1];")), "which is no device memory"));
  CHECK(has(complaint(kernel_of("mov.u32 %r10, held;\nld.shared.u32 %r1, [%r10+1024];", array)), "shared access of 4 bytes at 1024 of 1024 bytes"));
}

TEST_CASE("ptx/memory: what nobody wrote is not read") {
  void* device = nullptr;
  cudaMalloc(&device, 256);
  ptx::argument const given{&device, sizeof device, alignof(void*)};
  auto const read = kernel_of("ld.global.u32 %r1, [%mine];"), write = kernel_of("st.global.u32 [%mine], %r0;");
  CHECK_THROWS_WITH(ptx::run(read, dim3(1), 64, 0, false, &given, 1), doctest::Contains("reads device memory that nobody wrote"));
  ptx::run(write, dim3(1), 64, 0, false, &given, 1);
  CHECK_NOTHROW(ptx::run(read, dim3(1), 64, 0, false, &given, 1));
  cudaFree(device);
  CHECK(has(complaint(kernel_of("mov.u32 %r10, held;\nld.shared.u32 %r1, [%r10];", array)), "reads shared memory that nobody wrote"));
}

TEST_CASE("ptx/memory: device memory between threads and blocks") {
  // Every thread writes its word; then it reads the word of the thread 32 further.
  std::string const write = "st.global.u32 [%mine], %r0;\n", read = "xor.b32 %r1, %r0, 32;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %to, %rd1;\nld.global.u32 %r2, [%rd1];\n";
  CHECK(complaint(kernel_of(write + "bar.sync 0;\n" + read)) == "nothing");
  CHECK(has(complaint(kernel_of(write + read)), "wrote, with no barrier between"));
  CHECK(has(complaint(kernel_of(write + "bar.sync 0;\nld.global.nc.u32 %r2, [%mine];")), "a read-only load of what this launch wrote"));
  CHECK(has(complaint(kernel_of("mov.u32 %r1, %ctaid.x;\nst.global.u32 [%mine], %r1;"), 64, false, 2), "writes what block 0 wrote in this launch"));
  CHECK(complaint(kernel_of("mov.u32 %r1, 1;\natom.global.add.u32 %r2, [%mine], %r1;"), 64, false, 2) == "nothing");
}

TEST_CASE("ptx/memory: signs and widths of loads") {
  std::vector<std::uint32_t> numbers(32, 0x80ff1234U);
  auto const made = run(kernel_of(R"(
    ld.global.s8 %h1, [%to+2];
    cvt.s32.s16 %r1, %h1;
    ld.global.u8 %h2, [%to+2];
    cvt.s32.s16 %r2, %h2;
    ld.global.s16 %r3, [%to+2];
    ld.global.u16 %r4, [%to+2];
    bar.sync 0;
    setp.eq.u32 %p1, %r0, 1;
    @%p1 mov.u32 %r1, %r2;
    setp.eq.u32 %p1, %r0, 2;
    @%p1 mov.u32 %r1, %r3;
    setp.eq.u32 %p1, %r0, 3;
    @%p1 mov.u32 %r1, %r4;
    st.global.u32 [%mine], %r1;)"), 32, numbers);
  CHECK(made[0] == 0xffffffffU);
  CHECK(made[1] == 0xffU);
  CHECK(made[2] == 0xffff80ffU);
  CHECK(made[3] == 0x80ffU);
}

}  // namespace ptx_memory_tests
