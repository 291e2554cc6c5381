// Do the tensors of a checkpoint fit its config.json? Asked before any weight is read.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/dtype.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/safetensors_header.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/module.hpp>

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

[[nodiscard]] inline std::string shape_text(std::span<index_t const> shape) {
  std::string text = "[";
  for (std::size_t d = 0; d < shape.size() && d < 8; ++d) text += (d == 0 ? "" : ", ") + std::to_string(shape[d]);
  return text + (shape.size() > 8 ? ", ...]" : "]");
}

[[nodiscard]] inline std::string module_place(model_config const& config, module_id id) {
  return "tensor '" + printable(module_name(*config.family, id)) + "' (" + std::string(role_name(id.role)) + ")";
}

}  // namespace detail

/// Throws `input_error` unless `tensor` has a float type and the shape of module `id`; `place` names the checkpoint.
inline void check_tensor(model_config const& config, module_id id, tensor_description const& tensor,
                         std::string_view place) {
  if (tensor.type != dtype::bfloat16 && tensor.type != dtype::float16 && tensor.type != dtype::float32)
    throw input_error(place, detail::module_place(config, id) + ": expected BF16, F16 or F32, found " +
                                 printable(type_name_of(tensor), 64));
  std::vector<index_t> const expected = module_shape(config, id);
  if (!std::equal(expected.begin(), expected.end(), tensor.shape.begin(), tensor.shape.end()))
    throw input_error(place, detail::module_place(config, id) + ": expected shape " + detail::shape_text(expected) +
                                 " (by config.json), found " + detail::shape_text(tensor.shape));
}

/// Vouches for a module that is stored otherwise than as one float tensor: a packed format checks its own tensors.
using module_voucher = std::function<bool(module_id)>;

/// Compares all tensors of a checkpoint (sorted by name) with its config. Every module must be there with a float type
/// and its shape, unless `vouched(id)` is true or a novice stands for the expert; a tensor that names a module which the
/// config does not have (a layer or an expert beyond its count, a dropped part) is refused too. Returns the tensors
/// that the family does not know, to be passed through untouched. `place` names the checkpoint.
/// Cost O(tensors log tensors), no memory in proportion to declared sizes. Throws `input_error` naming the tensor.
[[nodiscard]] inline std::vector<tensor_info const*> check_tensors(model_config const& config,
                                                                   std::span<tensor_info const> tensors,
                                                                   std::string_view place,
                                                                   module_voucher const& vouched = {}) {
  auto const find = [&](std::string_view name) -> tensor_info const* {
    auto const at = std::lower_bound(tensors.begin(), tensors.end(), name,
                                     [](tensor_info const& each, std::string_view key) { return each.name < key; });
    return at != tensors.end() && at->name == name ? &*at : nullptr;
  };
  for_each_module(config, [&](module_id id) {
    if (vouched && vouched(id)) return;
    if (tensor_info const* const tensor = find(module_name(*config.family, id))) {
      check_tensor(config, id, *tensor, place);
      return;
    }
    if (id.role == module_role::gate || id.role == module_role::up || id.role == module_role::down) {
      module_id const novice{module_role::novice, id.layer, id.expert};
      if (tensor_info const* const tensor = find(module_name(*config.family, novice))) {
        check_tensor(config, novice, *tensor, place);
        return;
      }
    }
    throw input_error(place, detail::module_place(config, id) + ": expected by config.json, not found");
  });
  std::vector<tensor_info const*> unknown;
  for (tensor_info const& tensor : tensors) {
    auto const id = parse_module(*config.family, tensor.name);
    bool const tied_head = id && id->role == module_role::head && config.tied_embeddings;
    if (!id || tied_head) {
      unknown.push_back(&tensor);
    } else if (!has_module(config, *id)) {
      throw input_error(place, detail::module_place(config, *id) + ": found, but config.json has no such module (" +
                                   std::to_string(config.layer_count()) + " layers)");
    }
  }
  return unknown;
}

}  // namespace v0
}  // namespace slimtrim
