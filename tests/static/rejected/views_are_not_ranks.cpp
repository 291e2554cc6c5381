// expects: no match|cannot convert|no matching|no viable|could not convert
#include <slimtrim/tensor/subview.hpp>

slimtrim::vector_view<float> flatten(slimtrim::matrix_view<float> x) { return x; }
