// expects: vector_like
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/similarity/cosine.hpp>

#include <complex>
#include <vector>

double similarity(std::vector<std::complex<float>> const& a) {
  return slimtrim::cosine_similarity(slimtrim::reference_backend{}, a, a);
}
