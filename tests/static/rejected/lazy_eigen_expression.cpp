// expects: vector_like
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/similarity/cosine.hpp>

#include <Eigen/Core>

double similarity(Eigen::VectorXf const& a, Eigen::VectorXf const& b) {
  return slimtrim::cosine_similarity(slimtrim::reference_backend{}, a + b, b);
}
