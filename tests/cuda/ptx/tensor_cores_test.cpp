#include "cuda/ptx/kernels.hpp"

#include <doctest/doctest.h>

#include <random>

namespace ptx_tensor_cores_tests {

using namespace ptx_tests;

bool has(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }

// Small whole numbers in bfloat16: every sum is exact, whatever its order.
std::uint32_t half_of(int value) {
  auto const f = static_cast<float>(value);
  std::uint32_t bits = 0;
  std::memcpy(&bits, &f, 4);
  return bits >> 16;
}
std::uint32_t pair(int low, int high) { return half_of(low) | half_of(high) << 16; }
float as_float(std::uint32_t bits) {
  float f = 0;
  std::memcpy(&f, &bits, 4);
  return f;
}

struct matrix {
  int rows, columns;
  std::vector<int> values;
  matrix(int r, int c, unsigned seed) : rows(r), columns(c), values(static_cast<std::size_t>(r * c)) {
    std::mt19937 random(seed);
    for (int& v : values) v = static_cast<int>(random() % 15) - 7;
  }
  [[nodiscard]] int operator()(int r, int c) const { return values[static_cast<std::size_t>(r * columns + c)]; }
};
int product(matrix const& a, matrix const& b, int row, int column) {
  int sum = 0;
  for (int k = 0; k < a.columns; ++k) sum += a(row, k) * b(k, column);
  return sum;
}

// Words that a kernel takes from memory, lane by lane: `count` a lane from word `first` on into %r<to>.
std::string loads(int first, int count, int to) {
  std::string text;
  for (int n = 0; n < count; ++n)
    text += "ld.global.u32 %r" + std::to_string(to + n) + ", [%mine+" + std::to_string((first + n) * 128) + "];\n";
  return text;
}
std::string names(char const* kind, int first, int count) {
  std::string text = "{";
  for (int n = 0; n < count; ++n) text += (n == 0 ? "%" : ", %") + std::string(kind) + std::to_string(first + n);
  return text + "}";
}
std::string stores(int first_float, int count) {
  std::string text;
  for (int n = 0; n < count; ++n)
    text += "st.global.f32 [%mine+" + std::to_string(n * 128) + "], %f" + std::to_string(first_float + n) + ";\n";
  return text;
}
std::string zeros(int count) {
  std::string text;
  for (int n = 0; n < count; ++n) text += "mov.f32 %f" + std::to_string(n) + ", 0f00000000;\n";
  return text;
}

TEST_CASE("ptx/tensor_cores: mma of 16 x 16 by 16 x 8") {
  matrix const a(16, 16, 1), b(16, 8, 2);
  std::vector<std::uint32_t> memory(32 * 6);
  for (int l = 0; l < 32; ++l) {
    int const g = l / 4, t = l % 4 * 2;
    std::uint32_t const words[6] = {pair(a(g, t), a(g, t + 1)),         pair(a(g + 8, t), a(g + 8, t + 1)),
                                    pair(a(g, t + 8), a(g, t + 9)),     pair(a(g + 8, t + 8), a(g + 8, t + 9)),
                                    pair(b(t, g), b(t + 1, g)),         pair(b(t + 8, g), b(t + 9, g))};
    for (int n = 0; n < 6; ++n) memory[static_cast<std::size_t>(n * 32 + l)] = words[n];
  }
  auto const made = run(kernel_of(zeros(4) + loads(0, 6, 1) + "mov.f32 %f0, 0f41200000;\nmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 " + names("f", 0, 4) + ", " +
                                  names("r", 1, 4) + ", " + names("r", 5, 2) + ", " + names("f", 0, 4) + ";\n" + stores(0, 4)),
                        32, memory);
  for (int l = 0; l < 32; ++l)
    for (int n = 0; n < 4; ++n)
      CHECK(as_float(made[static_cast<std::size_t>(n * 32 + l)]) == product(a, b, l / 4 + n / 2 * 8, l % 4 * 2 + n % 2) + (n == 0 ? 10 : 0));
}

TEST_CASE("ptx/tensor_cores: mma of a matrix of which two of every four columns are kept") {
  matrix dense(16, 32, 3);
  matrix const b(32, 8, 4);
  std::mt19937 random(5);
  int places[16][8][2];
  for (int row = 0; row < 16; ++row)
    for (int part = 0; part < 8; ++part) {
      int const first = static_cast<int>(random() % 3), second = first + 1 + static_cast<int>(random() % static_cast<unsigned>(3 - first));
      places[row][part][0] = first;
      places[row][part][1] = second;
      for (int n = 0; n < 4; ++n)
        if (n != first && n != second) dense.values[static_cast<std::size_t>(row * 32 + part * 4 + n)] = 0;
    }
  auto const kept = [&](int row, int column) { return dense(row, column / 2 * 4 + places[row][column / 2][column % 2]); };
  for (int selector = 0; selector < 2; ++selector) {
    std::vector<std::uint32_t> memory(32 * 9);
    for (int l = 0; l < 32; ++l) {
      int const g = l / 4, t = l % 4 * 2;
      std::uint32_t word = 0xffffffffU;  // in lanes that nobody asks
      if (l % 4 / 2 == selector) {
        word = 0;
        for (int half = 0; half < 2; ++half)
          for (int part = 0; part < 4; ++part)
            for (int n = 0; n < 2; ++n)
              word |= static_cast<std::uint32_t>(places[g + 8 * half][l % 2 * 4 + part][n]) << (half * 16 + part * 4 + n * 2);
      }
      std::uint32_t const words[9] = {pair(kept(g, t), kept(g, t + 1)),         pair(kept(g + 8, t), kept(g + 8, t + 1)),
                                      pair(kept(g, t + 8), kept(g, t + 9)),     pair(kept(g + 8, t + 8), kept(g + 8, t + 9)),
                                      pair(b(t, g), b(t + 1, g)),               pair(b(t + 8, g), b(t + 9, g)),
                                      pair(b(t + 16, g), b(t + 17, g)),         pair(b(t + 24, g), b(t + 25, g)),         word};
      for (int n = 0; n < 9; ++n) memory[static_cast<std::size_t>(n * 32 + l)] = words[n];
    }
    auto const made = run(kernel_of(zeros(4) + loads(0, 9, 1) + "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 " + names("f", 0, 4) +
                                    ", " + names("r", 1, 4) + ", " + names("r", 5, 4) + ", " + names("f", 0, 4) + ", %r9, " + std::to_string(selector) +
                                    ";\n" + stores(0, 4)),
                          32, memory);
    for (int l = 0; l < 32; ++l)
      for (int n = 0; n < 4; ++n)
        CHECK(as_float(made[static_cast<std::size_t>(n * 32 + l)]) == product(dense, b, l / 4 + n / 2 * 8, l % 4 * 2 + n % 2));
  }
}

// A warpgroup's product: 64 x 16 in registers, 128 tokens in shared memory, written there by the threads (thread n token n).
struct warpgroup {
  matrix a{64, 16, 6}, b{16, 128, 7};
  std::vector<std::uint32_t> memory;

  warpgroup() : memory(64 * 128) {
    for (int l = 0; l < 128; ++l) {
      int const g = l / 32 * 16 + l % 32 / 4, t = l % 4 * 2;
      std::uint32_t const words[4] = {pair(a(g, t), a(g, t + 1)), pair(a(g + 8, t), a(g + 8, t + 1)), pair(a(g, t + 8), a(g, t + 9)),
                                      pair(a(g + 8, t + 8), a(g + 8, t + 9))};
      for (int n = 0; n < 4; ++n) memory[static_cast<std::size_t>(n * 128 + l)] = words[n];
      for (int k = 0; k < 16; k += 2) memory[static_cast<std::size_t>((4 + k / 2) * 128 + l)] = pair(b(k, l), b(k + 1, l));
    }
  }
  // Piece c (16 bytes) of token n at piece c ^ n % 8 of row n; the 16 columns are pieces 2 and 3.
  [[nodiscard]] static std::string place_tokens() {
    std::string text = "mov.u32 %r10, held;\nshl.b32 %r11, %r0, 7;\nadd.u32 %r11, %r10, %r11;\nand.b32 %r12, %r0, 7;\n";
    for (int c = 0; c < 2; ++c) {
      std::string const n = std::to_string(c + 2);
      text += "xor.b32 %r13, %r12, " + n + ";\nshl.b32 %r13, %r13, 4;\nadd.u32 %r13, %r13, %r11;\n";
      for (int w = 0; w < 4; ++w)
        text += "ld.global.u32 %r14, [%mine+" + std::to_string((4 + c * 4 + w) * 512) + "];\nst.shared.u32 [%r13+" + std::to_string(w * 4) + "], %r14;\n";
    }
    return text;
  }
  [[nodiscard]] static std::string rows() {
    std::string text;
    for (int n = 0; n < 4; ++n) text += "ld.global.u32 %r" + std::to_string(1 + n) + ", [%mine+" + std::to_string(n * 512) + "];\n";
    return text;
  }
  [[nodiscard]] static std::string descriptor() {
    return "add.u32 %r15, %r10, 32;\nshr.u32 %r15, %r15, 4;\ncvt.u64.u32 %rd1, %r15;\nmov.u64 %rd2, 0x4000004000010000;\nor.b64 %rd1, %rd1, %rd2;\n"
           "setp.ne.b32 %p1, %r10, 0;\n";
  }
  [[nodiscard]] static std::string multiply() {
    return "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " + names("f", 0, 64) + ", " + names("r", 1, 4) + ", %rd1, %p1, 1, 1, 0;\n";
  }
  [[nodiscard]] static std::string results() {
    std::string text;
    for (int n = 0; n < 64; ++n) text += "st.global.f32 [%mine+" + std::to_string(n * 512) + "], %f" + std::to_string(n) + ";\n";
    return text;
  }
};
char const* const tile = ".shared .align 1024 .b8 held[16384];\n";
char const* const fence = "fence.proxy.async.shared::cta;\nbar.sync 0;\n";
char const* const begin = "wgmma.fence.sync.aligned;\n";
char const* const end = "wgmma.commit_group.sync.aligned;\n";
char const* const wait = "wgmma.wait_group.sync.aligned 0;\n";

TEST_CASE("ptx/tensor_cores: wgmma of 64 x 16 by 16 x 128") {
  using w = warpgroup;
  w const given;
  auto const made = run(kernel_of(zeros(64) + w::place_tokens() + w::rows() + w::descriptor() + fence + begin + w::multiply() + w::multiply() + end + wait +
                                      "bar.sync 0;\n" + w::results(),
                                  tile),
                        128, given.memory);
  bool all = true;
  for (int l = 0; l < 128; ++l)
    for (int n = 0; n < 64; ++n)
      all = all && as_float(made[static_cast<std::size_t>(n * 128 + l)]) ==
                       static_cast<float>(2 * product(given.a, given.b, l / 32 * 16 + l % 32 / 4 + n / 2 % 2 * 8, n / 4 * 8 + l % 4 * 2 + n % 2));
  CHECK(all);
}

TEST_CASE("ptx/tensor_cores: what wgmma needs around it") {
  using w = warpgroup;
  w const given;
  auto const said = [&](std::string const& body) {
    try {
      run(kernel_of(zeros(64) + w::place_tokens() + w::rows() + w::descriptor() + body, tile), 128, given.memory);
    } catch (ptx::violation const& v) {
      return std::string(v.what());
    }
    return std::string("nothing");
  };
  std::string const one = w::multiply() + end;
  CHECK(said(fence + (begin + one) + wait) == "nothing");
  CHECK(has(said("bar.sync 0;\n" + (begin + one) + wait), "with no fence between"));
  CHECK(has(said("fence.proxy.async.shared::cta;\n" + (begin + one) + wait), "reads shared memory that nobody wrote"));
  CHECK(has(said(fence + one + wait), "without wgmma.fence"));
  CHECK(has(said(fence + (begin + one) + "add.f32 %f7, %f7, %f7;\n" + wait), "a register of a product under way"));
  CHECK(has(said(fence + (begin + one) + "mov.u32 %r1, 0;\n" + wait), "a register of a product under way"));
  CHECK(has(said(fence + (begin + one) + "st.shared.u32 [%r13], %r14;\n" + wait), "writes what a product under way reads"));
  CHECK(has(said(fence + (begin + one)), "ends with products under way"));
  CHECK(said(fence + (begin + one) + wait + "bar.sync 0;\nst.shared.u32 [%r13], %r14;\n") == "nothing");
}

TEST_CASE("ptx/tensor_cores: ldmatrix, plain and transposed") {
  std::string const place = "mov.u32 %r10, held;\nshl.b32 %r11, %r0, 4;\nadd.u32 %r11, %r10, %r11;\nshl.b32 %r12, %r0, 16;\n";
  std::string fill;
  for (int w = 0; w < 4; ++w)  // element e of row r of all 32: 64 r + e, below 2^16
    fill += "mul.lo.u32 %r13, %r0, 64;\nadd.u32 %r14, %r13, " + std::to_string(2 * w) + ";\nadd.u32 %r15, %r13, " + std::to_string(2 * w + 1) +
            ";\nshl.b32 %r15, %r15, 16;\nor.b32 %r14, %r14, %r15;\nst.shared.u32 [%r11+" + std::to_string(4 * w) + "], %r14;\n";
  for (bool const turned : {false, true}) {
    std::string out;
    for (int n = 0; n < 4; ++n) out += "st.global.u32 [%mine+" + std::to_string(128 * n) + "], %r" + std::to_string(20 + n) + ";\n";
    auto const made = run(kernel_of(place + fill + "bar.sync 0;\nldmatrix.sync.aligned.m8n8.x4" + (turned ? ".trans" : "") + ".shared.b16 " + names("r", 20, 4) +
                                        ", [%r11];\n" + out,
                                    ".shared .align 16 .b8 held[512];\n"),
                          32, std::vector<std::uint32_t>(128));
    for (std::uint32_t n = 0; n < 4; ++n)
      for (std::uint32_t l = 0; l < 32; ++l) {
        std::uint32_t const g = l / 4, t = l % 4 * 2;
        auto const value = [&](std::uint32_t row, std::uint32_t column) { return 64 * (8 * n + row) + column; };
        CHECK(made[n * 32 + l] == (turned ? value(t, g) | value(t + 1, g) << 16 : value(g, t) | value(g, t + 1) << 16));
      }
  }
}

}  // namespace ptx_tensor_cores_tests
