// expects: success
// The control: what the other files here do wrong, done right. It proves that they fail for their own reason.
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/similarity/cosine.hpp>

#include <Eigen/Core>

double similarity(Eigen::VectorXf const& a, Eigen::MatrixXf const& b) {
  return slimtrim::cosine_similarity(slimtrim::reference_backend{}, a, b.row(0));
}
