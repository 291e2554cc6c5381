#include <doctest/doctest.h>
#include <slimtrim/cuda/words.hpp>

namespace cuda_words_test {

using namespace slimtrim;

static_assert(sizeof(cuda::words4) == 16 && alignof(cuda::words4) == 16);
static_assert(cuda::half_precision<bfloat16> && cuda::half_precision<float16> && !cuda::half_precision<float>);

TEST_CASE("words: a pair keeps its elements apart, the first in the low half") {
  auto const pair = cuda::pair_of<bfloat16>(bfloat16(1.5F), bfloat16(-3.0F));
  CHECK((pair & 0xffffU) == bfloat16(1.5F).bits);
  CHECK(static_cast<float>(cuda::element_of_pair<bfloat16>(pair, false)) == 1.5F);
  CHECK(static_cast<float>(cuda::element_of_pair<bfloat16>(pair, true)) == -3.0F);
}

}  // namespace cuda_words_test
