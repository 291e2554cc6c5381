// Golden words were made by other programs (compressed-tensors, AutoAWQ, AutoGPTQ) from the codes named in each case.
#include <slimtrim/slim/quantize/pack.hpp>
#include <slimtrim/slim/quantize/quantized_matrix.hpp>

#include <doctest/doctest.h>

#include <slimtrim/core/random.hpp>

#include <vector>

namespace slim_quantize_pack_test {

using namespace slimtrim;

namespace {

quantized_matrix golden_matrix() {
  quantized_matrix q(8, 16, {.bits = 4, .symmetric = false}, {group_kind::group, 16}, scale_type::float16);
  std::vector<std::uint8_t> codes(16);
  for (index_t n = 0; n < 8; ++n) {
    for (index_t k = 0; k < 16; ++k) codes[static_cast<std::size_t>(k)] = static_cast<std::uint8_t>((7 * n + 3 * k) % 16);
    q.set_row(n, codes.data());
    q.set(n, 0, {1.0F, static_cast<int>(n) + 4});
  }
  return q;
}

}  // namespace

TEST_CASE("compressed-tensors golden words") {
  quantized_matrix const q = golden_matrix();
  CHECK(q.words(0, 0) == 0x52fc9630U);
  CHECK(q.words(0, 1) == 0xda741eb8U);
  CHECK(q.words(1, 0) == 0xc9630da7U);
  CHECK(q.words(1, 1) == 0x41eb852fU);
  auto const zeros = pack_zeros(q.zeros.view(), 4);
  CHECK(zeros.extent(0) == 1);
  CHECK(zeros(0, 0) == 0xba987654U);

  int const signed_codes[8] = {-128, -91, -54, -17, 20, 57, 94, -125};
  std::uint8_t codes[8];
  for (int i = 0; i < 8; ++i) codes[i] = static_cast<std::uint8_t>(signed_codes[i] + 128);
  std::uint32_t words[2];
  pack_codes(codes, 8, 8, words);
  CHECK(words[0] == 0x6f4a2500U);
  CHECK(words[1] == 0x03deb994U);

  int const threes[16] = {-4, -4, -2, 1, 3, 3, -4, -3, 0, 3, 3, -4, -4, -1, 2, 3};
  std::uint8_t three_codes[16];
  for (int i = 0; i < 16; ++i) three_codes[i] = static_cast<std::uint8_t>(threes[i] + 4);
  pack_codes(three_codes, 16, 3, words);
  CHECK(words[0] == 0xfc23fa80U);
  CHECK(words[1] == 0x0000f981U);
}

TEST_CASE("GPTQ golden words, both versions") {
  quantized_matrix const q = golden_matrix();
  auto const words = gptq_codes(q.view());
  std::uint32_t const first[8] = {0x52fc9630U, 0xc9630da7U, 0x30da741eU, 0xa741eb85U,
                                  0x1eb852fcU, 0x852fc963U, 0xfc9630daU, 0x630da741U};
  std::uint32_t const second[8] = {0xda741eb8U, 0x41eb852fU, 0xb852fc96U, 0x2fc9630dU,
                                   0x9630da74U, 0x0da741ebU, 0x741eb852U, 0xeb852fc9U};
  REQUIRE(words.extent(0) == 2);
  for (index_t n = 0; n < 8; ++n) {
    CHECK(words(0, n) == first[n]);
    CHECK(words(1, n) == second[n]);
  }
  CHECK(gptq_zeros(q.zeros.view(), 4, false)(0, 0) == 0xba987654U);
  CHECK(gptq_zeros(q.zeros.view(), 4, true)(0, 0) == 0xa9876543U);
  matrix<std::uint8_t> symmetric(8, 1);
  symmetric.fill(8);
  CHECK(gptq_zeros(symmetric.view(), 4, true)(0, 0) == 0x77777777U);
  auto const back = words_of_gptq(words.view());
  for (index_t n = 0; n < 8; ++n)
    for (index_t k = 0; k < 2; ++k) CHECK(back(n, k) == q.words(n, k));
}

TEST_CASE("AWQ golden words") {
  quantized_matrix const q = golden_matrix();
  auto const words = awq_codes(q.view());
  CHECK(words(0, 0) == 0x1357ace0U);
  CHECK(words(1, 0) == 0x468adf13U);
  CHECK(awq_zeros(q.zeros.view())(0, 0) == 0xb975a864U);
  auto const codes = codes_of_awq(words.view());
  for (index_t n = 0; n < 8; ++n)
    for (index_t k = 0; k < 16; ++k) CHECK(codes(n, k) == (7 * n + 3 * k) % 16);
}

TEST_CASE("streams of every width and length round-trip, agree with quantized_view and stay inside their words") {
  for (int bits = 1; bits <= 8; ++bits)
    for (index_t n : {1, 2, 5, 7, 8, 9, 31, 32, 33, 100}) {
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(n)), back(static_cast<std::size_t>(n));
      for (index_t i = 0; i < n; ++i)
        codes[static_cast<std::size_t>(i)] =
            static_cast<std::uint8_t>(random_bits_at(1, static_cast<std::uint64_t>(bits), static_cast<std::uint64_t>(i)) & ((1U << bits) - 1U));
      index_t const count = packed_words(n, bits);
      std::vector<std::uint32_t> words(static_cast<std::size_t>(count) + 1, 0xdeadbeefU);
      pack_codes(codes.data(), n, bits, words.data());
      CHECK(words.back() == 0xdeadbeefU);
      unpack_codes(words.data(), n, bits, back.data());
      CHECK(back == codes);
      quantized_view<> view;
      view.columns = n;
      view.bits = bits;
      view.words = words.data();
      for (index_t i = 0; i < n; ++i) REQUIRE(view.code(0, i) == codes[static_cast<std::size_t>(i)]);
    }
}

TEST_CASE("zero points round-trip through every layout") {
  for (int bits : {2, 3, 4, 8}) {
    matrix<std::uint8_t> zeros(32, 3);
    for (index_t i = 0; i < 32; ++i)
      for (index_t g = 0; g < 3; ++g) zeros(i, g) = static_cast<std::uint8_t>((5 * i + g) & ((1 << bits) - 1));
    auto const same = [&](matrix<std::uint8_t> const& other) {
      for (index_t i = 0; i < 32; ++i)
        for (index_t g = 0; g < 3; ++g)
          if (other(i, g) != zeros(i, g)) return false;
      return true;
    };
    CHECK(same(unpack_zeros(pack_zeros(zeros.view(), bits).view(), 32, bits)));
    CHECK(same(gptq_zeros_of(gptq_zeros(zeros.view(), bits, true).view(), 32, bits, true)));
    CHECK(same(gptq_zeros_of(gptq_zeros(zeros.view(), bits, false).view(), 32, bits, false)));
    if (bits == 4) CHECK(same(codes_of_awq(awq_zeros(zeros.view()).view())));
  }
}

TEST_CASE("what a format cannot carry is refused") {
  quantized_matrix const odd(8, 7, {.bits = 4}, {group_kind::group, 7}, scale_type::float16);
  CHECK_THROWS_AS((void)gptq_codes(odd.view()), error);
  quantized_matrix const few(7, 8, {.bits = 4}, {group_kind::group, 8}, scale_type::float16);
  CHECK_THROWS_AS((void)awq_codes(few.view()), error);
  quantized_matrix const three(8, 32, {.bits = 3}, {group_kind::group, 32}, scale_type::float16);
  CHECK_THROWS_AS((void)awq_codes(three.view()), error);
}

}  // namespace slim_quantize_pack_test
