#include "cuda/ptx/kernels.hpp"

#include <doctest/doctest.h>

namespace ptx_arithmetic_tests {

using namespace ptx_tests;

// The value of register %r9 (bits) after `body`, of one lane.
std::uint32_t result(std::string const& body) { return run(body + "\nst.global.u32 [%mine], %r9;").at(0); }
std::uint32_t of_float(float f) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &f, 4);
  return bits;
}

TEST_CASE("ptx/arithmetic: integers") {
  CHECK(result("mov.u32 %r1, 0xfffffff0;\nadd.s32 %r9, %r1, 32;") == 16);
  CHECK(result("mov.u32 %r1, 0x80000000;\nmul.hi.u32 %r9, %r1, 6;") == 3);
  CHECK(result("mov.u32 %r1, -7;\nmul.hi.s32 %r9, %r1, 2;") == 0xffffffffU);
  CHECK(result("mov.u32 %r1, -7;\nmul.wide.s32 %rd1, %r1, 1000000000;\nshr.s64 %rd1, %rd1, 32;\ncvt.u32.u64 %r9, %rd1;") == 0xfffffffeU);
  CHECK(result("mov.u32 %r1, -7;\ndiv.s32 %r9, %r1, 2;") == static_cast<std::uint32_t>(-3));
  CHECK(result("mov.u32 %r1, -7;\nrem.s32 %r9, %r1, 2;") == static_cast<std::uint32_t>(-1));
  CHECK(result("mov.u32 %r1, -7;\nshr.s32 %r9, %r1, 40;") == 0xffffffffU);
  CHECK(result("mov.u32 %r1, -7;\nshr.u32 %r9, %r1, 40;") == 0);
  CHECK(result("mov.u32 %r1, 1;\nshl.b32 %r9, %r1, 32;") == 0);
  CHECK(result("mov.u32 %r1, -3;\nmin.s32 %r9, %r1, 2;") == static_cast<std::uint32_t>(-3));
  CHECK(result("mov.u32 %r1, -3;\nmin.u32 %r9, %r1, 2;") == 2);
  CHECK(result("mov.u32 %r1, 0x00f0f000;\npopc.b32 %r9, %r1;") == 8);
  CHECK(result("mov.u32 %r1, 0x00f0f000;\nclz.b32 %r9, %r1;") == 8);
  CHECK(result("mov.u32 %r1, 1;\nbrev.b32 %r9, %r1;") == 0x80000000U);
  CHECK(result("mov.u32 %r1, 3;\nmad.lo.s32 %r9, %r1, 5, 7;") == 22);
}

TEST_CASE("ptx/arithmetic: bits and bytes") {
  CHECK(result("mov.u32 %r1, 0x33221100;\nmov.u32 %r2, 0x77665544;\nprmt.b32 %r9, %r1, %r2, 0x7310;") == 0x77331100U);
  CHECK(result("mov.u32 %r1, 0x00000080;\nprmt.b32 %r9, %r1, 0, 0x8888;") == 0xffffffffU);
  CHECK(result("mov.u32 %r1, 0xf0;\nmov.u32 %r2, 0xcc;\nmov.u32 %r3, 0xaa;\nlop3.b32 %r9, %r1, %r2, %r3, 0xea;") == ((0xf0U & 0xccU) | 0xaaU));
  CHECK(result("mov.u32 %r1, 0xf0;\nmov.u32 %r2, 0xcc;\nmov.u32 %r3, 0xaa;\nlop3.b32 %r9, %r1, %r2, %r3, 0x96;") == (0xf0U ^ 0xccU ^ 0xaaU));
  CHECK(result("mov.u32 %r1, 0x12345678;\nbfe.u32 %r9, %r1, 8, 8;") == 0x56);
  CHECK(result("mov.u32 %r1, 0x12f45678;\nbfe.s32 %r9, %r1, 16, 8;") == 0xfffffff4U);
  CHECK(result("mov.u32 %r1, 0xab;\nmov.u32 %r2, 0x11111111;\nbfi.b32 %r9, %r1, %r2, 4, 8;") == 0x11111ab1U);
  CHECK(result("mov.u32 %r1, 0x89abcdef;\nmov.u32 %r2, 0x01234567;\nshf.l.wrap.b32 %r9, %r1, %r2, 8;") == 0x23456789U);
  CHECK(result("mov.u32 %r1, 0x89abcdef;\nmov.u32 %r2, 0x01234567;\nshf.r.wrap.b32 %r9, %r1, %r2, 8;") == 0x6789abcdU);
  CHECK(result("mov.u32 %r1, 0x89abcdef;\nmov.b32 {%h1, %h2}, %r1;\nmov.b32 %r9, {%h2, %h1};") == 0xcdef89abU);
}

TEST_CASE("ptx/arithmetic: conversions round and saturate") {
  auto const from = [](char const* convert, float value) {
    char text[64];
    std::snprintf(text, sizeof text, "mov.f32 %%f1, 0f%08X;\n", of_float(value));
    return result(text + std::string(convert));
  };
  CHECK(from("cvt.rni.s32.f32 %r9, %f1;", 2.5F) == 2);
  CHECK(from("cvt.rzi.s32.f32 %r9, %f1;", -2.9F) == static_cast<std::uint32_t>(-2));
  CHECK(from("cvt.rmi.s32.f32 %r9, %f1;", -2.1F) == static_cast<std::uint32_t>(-3));
  CHECK(from("cvt.rpi.s32.f32 %r9, %f1;", 2.1F) == 3);
  CHECK(from("cvt.rzi.u32.f32 %r9, %f1;", -5.0F) == 0);
  CHECK(from("cvt.rzi.s32.f32 %r9, %f1;", 1e20F) == 0x7fffffffU);
  CHECK(from("cvt.rni.f32.f32 %f2, %f1;\nmov.b32 %r9, %f2;", 3.5F) == of_float(4));
  CHECK(from("cvt.sat.f32.f32 %f2, %f1;\nmov.b32 %r9, %f2;", 3.5F) == of_float(1));
  CHECK(from("cvt.sat.f32.f32 %f2, %f1;\nmov.b32 %r9, %f2;", -3.5F) == 0);
  // 1 + 2^-9 and 1 + 3 2^-9 lie between two bfloat16, of which the one with the even last bit is taken; the second operand is low.
  CHECK(from("mov.f32 %f2, 0f3F800000;\ncvt.rn.bf16x2.f32 %r9, %f2, %f1;", 1.00390625F) == 0x3f803f80U);
  CHECK(from("mov.f32 %f2, 0f3F800000;\ncvt.rn.bf16x2.f32 %r9, %f2, %f1;", 1.01171875F) == 0x3f803f82U);
  CHECK(from("mov.f32 %f2, 0fBF800000;\ncvt.rn.f16x2.f32 %r9, %f2, %f1;", 1e9F) == 0xbc007c00U);
  CHECK(from("mov.f32 %f2, 0f00000000;\ncvt.rn.f16x2.f32 %r9, %f2, %f1;", 5.9604645e-8F) == 1);
  CHECK(from("cvt.rn.f16.f32 %h1, %f1;\ncvt.f32.f16 %f2, %h1;\nmov.b32 %r9, %f2;", 0.1F) == of_float(0.0999755859375F));
  CHECK(result("mov.u64 %rd1, 16777217;\ncvt.rn.f32.s64 %f1, %rd1;\nmov.b32 %r9, %f1;") == of_float(16777216.0F));
  CHECK(result("mov.u32 %r1, 0xffff8001;\ncvt.u16.u32 %h1, %r1;\ncvt.s32.s16 %r9, %h1;") == 0xffff8001U);
}

TEST_CASE("ptx/arithmetic: halves in pairs") {
  // 1.5 - 0.25 and 2 - 3 in float16; 1.5 * 2 + 0.5 and 3 * 1 - 1 in bfloat16.
  CHECK(result("mov.u32 %r1, 0x40003e00;\nmov.u32 %r2, 0x42003400;\nsub.rn.f16x2 %r9, %r1, %r2;") == 0xbc003d00U);
  CHECK(result("mov.u32 %r1, 0x40403fc0;\nmov.u32 %r2, 0x3f804000;\nmov.u32 %r3, 0xbf803f00;\nfma.rn.bf16x2 %r9, %r1, %r2, %r3;") == 0x40004060U);
  // 1 + 2^-10 times itself is rounded once to 1 + 2^-9.
  CHECK(result("mov.u32 %r1, 0x00003c01;\nmul.rn.f16x2 %r9, %r1, %r1;") == 0x00003c02U);
}

TEST_CASE("ptx/arithmetic: comparisons know what is no number") {
  std::string const nan = "mov.f32 %f1, 0f7FC00000;\nmov.f32 %f2, 0f3F800000;\n", take = "selp.u32 %r9, 1, 0, %p1;";
  CHECK(result(nan + "setp.ne.f32 %p1, %f1, %f2;\n" + take) == 0);
  CHECK(result(nan + "setp.neu.f32 %p1, %f1, %f2;\n" + take) == 1);
  CHECK(result(nan + "setp.geu.f32 %p1, %f1, %f2;\n" + take) == 1);
  CHECK(result(nan + "setp.lt.f32 %p1, %f1, %f2;\n" + take) == 0);
  CHECK(result(nan + "setp.nan.f32 %p1, %f1, %f1;\n" + take) == 1);
  CHECK(result(nan + "setp.num.f32 %p1, %f1, %f2;\n" + take) == 0);
  CHECK(result(nan + "max.f32 %f3, %f1, %f2;\nmov.b32 %r9, %f3;") == of_float(1));
  CHECK(result("mov.u32 %r1, -1;\nsetp.lt.s32 %p1, %r1, 0;\n" + take) == 1);
  CHECK(result("mov.u32 %r1, -1;\nsetp.lt.u32 %p1, %r1, 0;\n" + take) == 0);
  CHECK(result("mov.u32 %r1, 3;\nsetp.eq.u32 %p2, %r1, 4;\nsetp.eq.or.u32 %p1, %r1, 3, %p2;\n" + take) == 1);
  CHECK(result("mov.u32 %r1, 3;\nsetp.eq.u32 %p2, %r1, 4;\nsetp.eq.and.u32 %p1, %r1, 3, %p2;\n" + take) == 0);
}

TEST_CASE("ptx/arithmetic: lanes exchange and vote") {
  auto const exchanged = [](std::string const& how) { return run(how + "\nst.global.u32 [%mine], %r9;"); };
  auto const by_xor = exchanged("shfl.sync.bfly.b32 %r9|%p1, %r0, 8, 31, -1;"), from = exchanged("shfl.sync.idx.b32 %r9|%p1, %r0, 5, 31, -1;"),
             down = exchanged("shfl.sync.down.b32 %r9|%p1, %r0, 4, 31, -1;"), up = exchanged("shfl.sync.up.b32 %r9|%p1, %r0, 4, 0, -1;"),
             votes = exchanged("setp.gt.u32 %p1, %r0, 29;\nvote.sync.ballot.b32 %r9, %p1, -1;");
  for (std::uint32_t l = 0; l < 32; ++l) {
    CHECK(by_xor[l] == (l ^ 8));
    CHECK(from[l] == 5);
    CHECK(down[l] == (l < 28 ? l + 4 : l));
    CHECK(up[l] == (l < 4 ? l : l - 4));
    CHECK(votes[l] == 0xc0000000U);
  }
}

}  // namespace ptx_arithmetic_tests
