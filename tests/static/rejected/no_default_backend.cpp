// expects: default_backend
#include <slimtrim/similarity/cosine.hpp>

#include <vector>

double similarity(std::vector<float> const& a) { return slimtrim::cosine_similarity(a, a); }
