// expects: no match|no matching|discards|read-only|cannot bind|could not convert|cannot convert
#include <slimtrim/backend/reference.hpp>

void update(slimtrim::matrix_view<float const> X, slimtrim::matrix_view<float const> H) {
  slimtrim::reference_backend{}.gram_update(1.0F, X, H);
}
