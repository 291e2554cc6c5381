// Weights straight from a checkpoint's float tensors: views into the mapped files, no copies.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/io/dtype.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/model/check_tensors.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/module.hpp>
#include <slimtrim/model/weight_source.hpp>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The weights of a checkpoint whose tensors are bfloat16, float16 or float32. Weights keep the mapping alive and read
/// pages when they are touched. A tensor at an address that its type cannot have is copied.
class plain_weights final : public weight_source {
 public:
  plain_weights(std::shared_ptr<checkpoint const> files, model_config config)
      : files_(std::move(files)), config_(std::move(config)) {}

  [[nodiscard]] bool has(module_id id) const override {
    std::string const name = module_name(*config_.family, id);
    return !name.empty() && files_->find(name) != nullptr;
  }

  [[nodiscard]] weight matrix(module_id id) const override {
    tensor_info const& tensor = find_checked(id);
    switch (tensor.type) {
      case dtype::bfloat16: return matrix_of<bfloat16>(tensor);
      case dtype::float16: return matrix_of<float16>(tensor);
      default: return matrix_of<float>(tensor);
    }
  }

  [[nodiscard]] std::vector<float> vector(module_id id) const override {
    tensor_info const& tensor = find_checked(id);
    switch (tensor.type) {
      case dtype::bfloat16: return vector_of<bfloat16>(tensor);
      case dtype::float16: return vector_of<float16>(tensor);
      default: return vector_of<float>(tensor);
    }
  }

  void release(index_t layer) const override {
    for_each_layer_module(config_, layer, [&](module_id id) {
      if (auto const* const tensor = files_->find(module_name(*config_.family, id))) files_->release(*tensor);
    });
  }
  void prefetch(module_id id) const override {
    if (auto const* const tensor = files_->find(module_name(*config_.family, id))) files_->prefetch(*tensor);
  }

 private:
  tensor_info const& find_checked(module_id id) const {
    tensor_info const& tensor = files_->at(module_name(*config_.family, id));
    check_tensor(config_, id, tensor, files_->place());
    return tensor;
  }

  template <class T>
  weight matrix_of(tensor_info const& tensor) const {
    auto const bytes = files_->bytes(tensor);
    weight result;
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0) {
      result.view = matrix_view<T const>(reinterpret_cast<T const*>(bytes.data()), tensor.shape[0], tensor.shape[1]);
      result.storage = files_;
    } else {
      auto copy = std::make_shared<buffer<T>>(tensor.shape[0] * tensor.shape[1]);
      std::memcpy(copy->data(), bytes.data(), bytes.size());
      result.view = matrix_view<T const>(copy->data(), tensor.shape[0], tensor.shape[1]);
      result.storage = std::move(copy);
    }
    return result;
  }

  template <class T>
  std::vector<float> vector_of(tensor_info const& tensor) const {
    std::vector<T> const stored = files_->load<T>(tensor);
    std::vector<float> result(stored.size());
    for (std::size_t i = 0; i < stored.size(); ++i) result[i] = static_cast<float>(stored[i]);
    return result;
  }

  std::shared_ptr<checkpoint const> files_;
  model_config config_;
};

}  // namespace v0
}  // namespace slimtrim
