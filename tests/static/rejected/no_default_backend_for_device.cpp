// expects: default_backend
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/similarity/cosine.hpp>

double similarity(slimtrim::vector_view<float const, slimtrim::space::device> a) {
  return slimtrim::cosine_similarity(a, a);
}
