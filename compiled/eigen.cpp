// The Eigen backend's primitives, instantiated once. Linked by programs that define SLIMTRIM_COMPILED; nobody has to.
#undef SLIMTRIM_COMPILED
#include <slimtrim/backend/eigen.hpp>

namespace slimtrim {
inline namespace v0 {

template double eigen_backend::dot<float>(vector_view<float const>, vector_view<float const>) const;
template void eigen_backend::gemm<float>(float, matrix_view<float const>, matrix_view<float const>, float,
                                  matrix_view<float>) const;
template void eigen_backend::gram_update<float>(float, matrix_view<float const>, matrix_view<float>) const;
template bool eigen_backend::inverse_factor<float>(matrix_view<float const>, matrix_view<float>) const;
template bool eigen_backend::solve_positive_definite<float>(matrix_view<float>, matrix_view<float>) const;
template double eigen_backend::dot<double>(vector_view<double const>, vector_view<double const>) const;
template void eigen_backend::gemm<double>(double, matrix_view<double const>, matrix_view<double const>, double,
                                  matrix_view<double>) const;
template void eigen_backend::gram_update<double>(double, matrix_view<double const>, matrix_view<double>) const;
template bool eigen_backend::inverse_factor<double>(matrix_view<double const>, matrix_view<double>) const;
template bool eigen_backend::solve_positive_definite<double>(matrix_view<double>, matrix_view<double>) const;

}  // namespace v0
}  // namespace slimtrim
