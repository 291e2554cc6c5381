// Blocks of Q8_0 and Q4_0 against the bytes of ggml's reference, and codes that are taken over from packed matrices.
#include <slimtrim/slim/quantize/gguf_blocks.hpp>

#include <slimtrim/core/random.hpp>
#include <slimtrim/slim/quantize/pack.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace slim_gguf_blocks_test {

namespace {

using namespace slimtrim;

std::string hex(std::vector<std::byte> const& bytes) {
  std::string text;
  for (std::byte const b : bytes) {
    constexpr char const* digits = "0123456789abcdef";
    text += digits[static_cast<unsigned>(b) >> 4];
    text += digits[static_cast<unsigned>(b) & 15U];
  }
  return text;
}

std::vector<std::byte> q4(std::vector<float> const& x) {
  std::vector<std::byte> out(x.size() / 32 * 18);
  encode_q4_0(x.data(), static_cast<index_t>(x.size()), out.data());
  return out;
}
std::vector<std::byte> q8(std::vector<float> const& x) {
  std::vector<std::byte> out(x.size() / 32 * 34);
  encode_q8_0(x.data(), static_cast<index_t>(x.size()), out.data());
  return out;
}

std::vector<float> noise(index_t n, std::uint64_t seed) {
  std::vector<float> x;
  for (index_t i = 0; i < n; ++i)
    x.push_back(static_cast<float>(uniform_at(seed, 0, static_cast<std::uint64_t>(i)) - 0.5));
  return x;
}

// A packed matrix with scales that are halves.
struct packed_matrix {
  matrix<std::uint32_t> words;
  matrix<float> scales;
  matrix<std::uint8_t> zeros;
  quantized_view<> view{};

  packed_matrix(index_t rows, index_t columns, int bits, index_t group) {
    words = matrix<std::uint32_t>(rows, packed_words(columns, bits));
    scales = matrix<float>(rows, columns / group);
    zeros = matrix<std::uint8_t>(rows, columns / group);
    zeros.fill(static_cast<std::uint8_t>(1 << (bits - 1)));
    for (index_t r = 0; r < rows; ++r) {
      std::vector<std::uint8_t> codes;
      for (index_t c = 0; c < columns; ++c)
        codes.push_back(static_cast<std::uint8_t>(
            uniform_at(7, static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(c)) * (1 << bits)));
      pack_codes(codes.data(), columns, bits, &words(r, 0));
      for (index_t g = 0; g < columns / group; ++g)
        scales(r, g) = static_cast<float>(float16(static_cast<float>(
            0.01 + 0.1 * uniform_at(8, static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(g)))));
    }
    view.rows = rows;
    view.columns = columns;
    view.bits = bits;
    view.words = words.view().data;
    view.words_per_row = words.extent(1);
    view.block_columns = group;
    view.scales = as_const(scales.view());
  }
};

}  // namespace

TEST_CASE("the bytes of ggml's reference") {
  std::vector<float> x;
  for (int i = 0; i < 32; ++i) x.push_back(static_cast<float>(i - 13) / 4);
  CHECK(hex(q4(x)) == "80b87e6d6d5c5c4c4b4b3a3a292918180807");
  CHECK(hex(q8(x)) == "8928a4abb2b9c0c8cfd6dde4ebf2f900070e151c232a313840474e555c636a71787f");
  // The largest magnitude decides the sign of Q4_0's scale: with -8 at -16, every code is x / 2 + 8.
  std::vector<float> even(32, 0.0F);
  even[0] = -16;
  even[31] = 14;
  CHECK(hex(q4(even)) == "004080" + std::string(28, '8') + "f8");
}

TEST_CASE("blocks that are zero, tiny or of one value stay finite") {
  float const tiny = std::numeric_limits<float>::denorm_min();
  for (float const value : {0.0F, -0.0F, tiny, -tiny, 1e-30F, 65504.0F, -3.0F}) {
    std::vector<float> const x(32, value);
    std::vector<float> back4(32), back8(32);
    decode_q4_0(q4(x).data(), 32, back4.data());
    decode_q8_0(q8(x).data(), 32, back8.data());
    for (int i = 0; i < 32; ++i) {
      CHECK(std::isfinite(back4[static_cast<std::size_t>(i)]));
      CHECK(std::isfinite(back8[static_cast<std::size_t>(i)]));
      // 2^-11 of the scale for the half, in 8 or 127 steps of it; below the least half everything is zero.
      double const expected = std::fabs(value) < 1e-7F ? 0.0 : static_cast<double>(value);
      CHECK(std::fabs(static_cast<double>(back4[static_cast<std::size_t>(i)]) - expected) <=
            std::fabs(expected) * 0x1p-11);
      CHECK(std::fabs(static_cast<double>(back8[static_cast<std::size_t>(i)]) - expected) <=
            std::fabs(expected) * 0x1p-11);
    }
  }
}

TEST_CASE("no element is further off than a step") {
  std::vector<float> const x = noise(32 * 100, 3);
  std::vector<float> back(x.size());
  auto const largest = [&](std::size_t block) {
    float most = 0;
    for (std::size_t i = 0; i < 32; ++i) most = std::max(most, std::fabs(x[32 * block + i]));
    return most;
  };
  // Half a step, and the half's rounding on up to 8 or 127 steps; Q4_0's other end lacks one code, so a whole step
  // there.
  decode_q8_0(q8(x).data(), static_cast<index_t>(x.size()), back.data());
  for (std::size_t i = 0; i < x.size(); ++i)
    CHECK(std::fabs(back[i] - x[i]) <= largest(i / 32) * (0.5F / 127 + 0x1p-11F));
  decode_q4_0(q4(x).data(), static_cast<index_t>(x.size()), back.data());
  for (std::size_t i = 0; i < x.size(); ++i)
    CHECK(std::fabs(back[i] - x[i]) <= largest(i / 32) * (1.0F / 8 + 0x1p-11F));
}

TEST_CASE("packed rows keep every value") {
  for (index_t const group : {32, 64, 128}) {
    packed_matrix const four(3, 128, 4, group), eight(3, 128, 8, group);
    std::vector<float> back(128);
    for (index_t r = 0; r < 3; ++r) {
      std::vector<std::byte> out(4 * 18);
      REQUIRE(repack_q4_0(four.view, r, out.data()));
      decode_q4_0(out.data(), 128, back.data());
      for (index_t c = 0; c < 128; ++c) CHECK(back[static_cast<std::size_t>(c)] == four.view(r, c));
      out.resize(4 * 34);
      REQUIRE(repack_q8_0(eight.view, r, out.data()));
      decode_q8_0(out.data(), 128, back.data());
      for (index_t c = 0; c < 128; ++c) CHECK(back[static_cast<std::size_t>(c)] == eight.view(r, c));
    }
  }
}

TEST_CASE("what blocks cannot say is not repacked") {
  packed_matrix m(2, 64, 4, 32);
  std::vector<std::byte> out(64);
  m.view.zeros = as_const(m.zeros.view());
  CHECK(repack_q4_0(m.view, 1, out.data()));  // zero points that are all in the middle
  m.zeros(1, 1) = 7;
  CHECK_FALSE(repack_q4_0(m.view, 1, out.data()));
  CHECK(repack_q4_0(m.view, 0, out.data()));
  m.view.zeros = {};
  m.scales(1, 1) = 1.0F / 3;  // no half
  CHECK_FALSE(repack_q4_0(m.view, 1, out.data()));
  m.scales(1, 1) = 1e6F;  // beyond the largest half
  CHECK_FALSE(repack_q4_0(m.view, 1, out.data()));
  CHECK_FALSE(repack_q8_0(m.view, 0, out.data()));
  std::vector<std::int32_t> const order(64, 0);
  m.view.column_group = order.data();
  CHECK_FALSE(repack_q4_0(m.view, 0, out.data()));
  CHECK_FALSE(repack_q4_0(packed_matrix(1, 64, 4, 16).view, 0, out.data()));
  CHECK_FALSE(repack_q4_0(packed_matrix(1, 48, 4, 48).view, 0, out.data()));
}

}  // namespace slim_gguf_blocks_test
