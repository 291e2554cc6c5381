// Scratch memory of a forward pass, kept from call to call.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/model/rope.hpp>
#include <slimtrim/router/dispatch.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Memory for one matrix at a time, which grows and never shrinks. Contents are lost when it grows.
template <class T>
class scratch_matrix {
 public:
  [[nodiscard]] matrix_view<T> shape(index_t rows, index_t columns) {
    if (static_cast<index_t>(memory_.size()) < rows * columns) memory_ = buffer<T>(rows * columns);
    return matrix_view<T>(memory_.data(), rows, columns);
  }

 private:
  buffer<T> memory_;
};

/// One per thread that runs forward passes; about T * (4 * hidden + 3 * width + 2 * top_k * hidden) floats.
struct forward_workspace {
  scratch_matrix<float> normalised, query, key, value, context, projected;
  scratch_matrix<float> logits, probabilities, weights;
  scratch_matrix<std::int32_t> indices;
  scratch_matrix<float> gathered, gate, up, routed, output;
  dispatch groups;
  std::vector<float> batch_weights;
  std::vector<index_t> positions;
  rotary_table rotary;
};

}  // namespace v0
}  // namespace slimtrim
