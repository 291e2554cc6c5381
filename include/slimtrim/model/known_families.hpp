// The registry of model families.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/model/families/deepseek.hpp>
#include <slimtrim/model/families/mixtral.hpp>
#include <slimtrim/model/family.hpp>

#include <array>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

inline constexpr std::array<model_family const*, 2> known_families{&mixtral_family, &deepseek_family};

/// The family whose `model_type` config.json names. Throws `input_error` that lists the known ones; `file` is the place
/// of config.json in the message.
[[nodiscard]] inline model_family const& find_family(std::string_view model_type, std::string_view file) {
  std::string known;
  for (model_family const* const each : known_families) {
    if (each->model_type == model_type) return *each;
    known += (known.empty() ? "" : ", ") + std::string(each->model_type);
  }
  throw input_error(file, "field 'model_type': expected one of " + known + ", found '" + printable(model_type) + "'");
}

}  // namespace v0
}  // namespace slimtrim
