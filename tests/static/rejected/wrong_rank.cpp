// expects: vector_like
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/similarity/cosine.hpp>

double similarity(slimtrim::matrix_view<float const> a, slimtrim::vector_view<float const> b) {
  return slimtrim::cosine_similarity(slimtrim::reference_backend{}, a, b);
}
