// A checkpoint opened as a model: config and tensors checked against each other, weights of whatever format behind one
// source.
#pragma once

#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/model/check_tensors.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/plain_weights.hpp>
#include <slimtrim/model/read_model_config.hpp>
#include <slimtrim/model/weight_source.hpp>
#include <slimtrim/pipeline/format/auto_awq.hpp>
#include <slimtrim/pipeline/format/compressed_tensors.hpp>
#include <slimtrim/pipeline/format/float8_checkpoint.hpp>
#include <slimtrim/pipeline/format/gptq_checkpoint.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Weights of a checkpoint in which some modules are packed in `format`; the others are plain. Packed stays packed.
class packed_weights final : public weight_source {
 public:
  packed_weights(std::shared_ptr<checkpoint const> files, model_config config,
                 std::shared_ptr<packed_format const> format)
      : files_(std::move(files)), config_(std::move(config)), format_(std::move(format)), plain_(files_, config_) {}

  [[nodiscard]] bool has(module_id id) const override {
    return plain_.has(id) || format_->holds(*files_, module_stem(*config_.family, id));
  }
  [[nodiscard]] weight matrix(module_id id) const override {
    std::string const stem = module_stem(*config_.family, id);
    if (!format_->holds(*files_, stem)) return plain_.matrix(id);
    std::vector<index_t> const shape = module_shape(config_, id);
    return format_->read(*files_, stem, shape[0], shape[1], files_);
  }
  [[nodiscard]] std::vector<float> vector(module_id id) const override { return plain_.vector(id); }
  void release(index_t layer) const override {
    for_each_layer_module(config_, layer, [&](module_id id) {
      for_each_tensor(id, [&](tensor_info const& tensor) { files_->release(tensor); });
    });
  }
  void prefetch(module_id id) const override {
    for_each_tensor(id, [&](tensor_info const& tensor) { files_->prefetch(tensor); });
  }

 private:
  // Those that a module is packed in.
  template <class Visit>
  void for_each_tensor(module_id id, Visit&& visit) const {
    std::string const prefix = module_stem(*config_.family, id) + ".";
    auto const& tensors = files_->tensors();
    auto at = std::lower_bound(tensors.begin(), tensors.end(), prefix,
                               [](tensor_info const& tensor, std::string const& key) { return tensor.name < key; });
    for (; at != tensors.end() && at->name.compare(0, prefix.size(), prefix) == 0; ++at) visit(*at);
  }

  std::shared_ptr<checkpoint const> files_;
  model_config config_;
  std::shared_ptr<packed_format const> format_;
  plain_weights plain_;
};

/// A model on disk, ready to be run or changed.
struct opened_model {
  std::shared_ptr<checkpoint const> files;
  model_config config;
  std::shared_ptr<packed_format const> format;  ///< null: no packed weights
  std::shared_ptr<weight_source const> weights;
};

/// The format that writes and reads `name` ("compressed-tensors", "awq", "gptq"), or null.
[[nodiscard]] inline std::shared_ptr<packed_format const> find_packed_format(std::string_view name) {
  if (name == "compressed-tensors") return std::make_shared<compressed_tensors_format>();
  if (name == "awq") return std::make_shared<auto_awq_format>();
  if (name == "gptq") return std::make_shared<gptq_checkpoint_format>();
  return nullptr;
}

namespace detail {

[[nodiscard]] inline std::shared_ptr<packed_format const> stored_format(checkpoint const& files) {
  ordered_json const* const quantization = find_field(files.config(), "quantization_config");
  if (quantization == nullptr || quantization->is_null()) return nullptr;
  std::string const place = files.config_place();
  ordered_json const& method = require_field(*quantization, "quant_method", place);
  std::string const name = method.is_string() ? method.get<std::string>() : method.dump();
  if (name == "gptq") {
    ordered_json const* const version = find_field(*quantization, "checkpoint_format");
    bool const second = version != nullptr && *version == "gptq_v2";
    return std::make_shared<gptq_checkpoint_format>(second ? 2 : 1);
  }
  if (auto format = stored_float8(*quantization, name, place)) return format;
  if (name == "compressed-tensors") {
    ordered_json const* const layout = find_field(*quantization, "format");
    if (layout == nullptr || *layout != "pack-quantized")
      throw input_error(place, "field 'quantization_config.format': expected \"pack-quantized\" or \"float-quantized\", found " +
                                   (layout == nullptr ? std::string("nothing") : layout->dump()));
  }
  if (auto format = find_packed_format(name)) return format;
  throw input_error(place, "field 'quantization_config.quant_method': expected compressed-tensors, awq, gptq or fp8, found " +
                               printable(name));
}

}  // namespace detail

/// Opens a model folder and compares every tensor with config.json, before any weight is read.
/// Throws `input_error` naming file, and field or tensor.
[[nodiscard]] inline opened_model open_model(std::filesystem::path const& folder) {
  opened_model model;
  model.files = std::make_shared<checkpoint const>(checkpoint::open(folder));
  model.config = read_model_config(model.files->config(), model.files->config_place());
  model.format = detail::stored_format(*model.files);
  module_voucher vouched;
  if (model.format)
    vouched = [&](module_id id) {
      std::string const stem = module_stem(*model.config.family, id);
      if (!model.format->holds(*model.files, stem)) return false;
      std::vector<index_t> const shape = module_shape(model.config, id);
      static_cast<void>(model.format->scheme_of(*model.files, stem, shape[0], shape[1]));
      return true;
    };
  static_cast<void>(check_tensors(model.config, model.files->tensors(), model.files->place(), vouched));
  if (model.format) {
    model.weights = std::make_shared<packed_weights>(model.files, model.config, model.format);
  } else {
    model.weights = std::make_shared<plain_weights>(model.files, model.config);
  }
  return model;
}

}  // namespace v0
}  // namespace slimtrim
