// expects: reach
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/similarity/cosine.hpp>

double similarity(slimtrim::vector_view<float const, slimtrim::space::device> a) {
  return slimtrim::cosine_similarity(slimtrim::reference_backend{}, a, a);
}
