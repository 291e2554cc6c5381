// expects: vector_like
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/similarity/cosine.hpp>

#include <xtensor/xtensor.hpp>

double similarity(xt::xtensor<float, 1> const& a, xt::xtensor<float, 1> const& b) {
  return slimtrim::cosine_similarity(slimtrim::reference_backend{}, a, 2.0F * b);
}
