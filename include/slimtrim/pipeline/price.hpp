// What a plan costs and saves, before anything is written: the sizes of the output's tensors are known from the plan.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/safetensors.hpp>
#include <slimtrim/pipeline/compress.hpp>
#include <slimtrim/pipeline/inspect.hpp>
#include <slimtrim/pipeline/plan.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Counts the model that `p` makes of `input`, as `inspect` will count it when it is written in `format` (empty: the
/// input's, else compressed-tensors). `file_bytes` is exact when the output is one file, and short of a few headers when
/// it is several. Throws as `compress` does before it writes: `usage_error` when the format cannot carry a step,
/// `input_error` when the plan does not fit.
[[nodiscard]] inline inspection price(opened_model const& input, plan const& p, std::string const& format = {}) {
  check_plan(p, input.config, "plan");
  auto const packed = detail::output_format(input, p, format);
  // As compress chooses the type of scales and the metadata.
  bool const half_scales = packed && packed->method() != "compressed-tensors";
  scale_type const scales = half_scales || input.config.storage == dtype::float16 ? scale_type::float16
                                                                                   : scale_type::bfloat16;
  output_modules const modules = list_output_modules(*input.files, input.config, p, scales);
  std::vector<tensor_description> described;
  for (copied_tensor const& copy : modules.copies) described.push_back(detail::described(copy));
  for (slimmed_module const& m : modules.slimmed) {
    if (!m.scheme) {
      described.push_back(m.dense);
      continue;
    }
    packed->check(m.stem, m.rows, m.columns, *m.scheme);
    for (tensor_description& tensor : packed->describe(m.stem, m.rows, m.columns, *m.scheme))
      described.push_back(std::move(tensor));
  }
  for (constant_tensor const& each : modules.constants) described.push_back(each.tensor);
  safetensors_layout const layout =
      plan_safetensors(std::move(described), {{"format", "pt"},
                                              {"slimtrim.version", SLIMTRIM_VERSION_STRING},
                                              {"slimtrim.instruction_set", std::string(detail::instruction_set())},
                                              {"slimtrim.recipe", p.recipe}});
  std::vector<tensor_info> tensors = layout.tensors;
  std::sort(tensors.begin(), tensors.end(),
            [](tensor_info const& a, tensor_info const& b) { return a.name < b.name; });
  return inspect(tensors, layout.file_bytes, planned_config(input.config, p));
}

}  // namespace v0
}  // namespace slimtrim
