// Where a model's weights come from: a plain checkpoint, a packed one, a layer that was just changed.
#pragma once

#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/model/module.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Gives out weights by module. Implementations are safe to read from several threads and check what they hand out:
/// a matrix has the shape `module_shape` says.
class weight_source {
 public:
  weight_source() = default;
  weight_source(weight_source const&) = delete;
  weight_source& operator=(weight_source const&) = delete;
  virtual ~weight_source() = default;

  /// Whether the source has this module.
  [[nodiscard]] virtual bool has(module_id id) const = 0;
  /// A matrix [out, in] of any kind, without expanding it. Throws `input_error` naming the tensor.
  [[nodiscard]] virtual weight matrix(module_id id) const = 0;
  /// A norm, a bias or a novice as floats. Throws `input_error` naming the tensor.
  [[nodiscard]] virtual std::vector<float> vector(module_id id) const = 0;
  /// Nobody will look at layer `layer` for a while: memory that can be read again may be given back. Weights handed out
  /// before stay valid.
  virtual void release(index_t layer) const { static_cast<void>(layer); }
  /// The module will be asked for soon: brings what it is made of into memory that can be given back at any time, and may wait for
  /// the disk meanwhile (read_ahead.hpp has a thread for that). Modules that are not there are passed over.
  virtual void prefetch(module_id id) const { static_cast<void>(id); }
};

}  // namespace v0
}  // namespace slimtrim
