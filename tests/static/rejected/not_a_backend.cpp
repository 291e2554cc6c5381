// expects: tensor_backend
#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/similarity/cosine.hpp>

#include <vector>

struct only_adds {
  static constexpr slimtrim::space memory = slimtrim::space::host;
};

double similarity(std::vector<float> const& a) { return slimtrim::cosine_similarity(only_adds{}, a, a); }
