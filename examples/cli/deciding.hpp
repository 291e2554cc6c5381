// What `plan` and `compress` share: from recipe, statistics and data to a plan.
#pragma once

#include "engine.hpp"

#include <optional>
#include <string>

namespace cli {

struct decide_flags {
  std::string recipe;
  std::string statistics;
  data_flags data;
  bool uniform = false;
  bool recalibrate = false;
  void declare(option_set& options);
};

/// A decided plan, and the windows that were read for it (nothing without --data).
struct decided {
  slimtrim::plan plan;
  std::optional<slimtrim::token_windows> windows;
};

/// Reads what the flags name and decides. Data is loaded when it is given; carry_out: it must be where a step works on tokens,
/// else only where something is decided by them.
[[nodiscard]] decided decide_plan(session const& at, engine const& run, slimtrim::opened_model const& model,
                                  decide_flags const& flags, bool carry_out);

/// Reads `--plan`. Throws `input_error` when it is a plan for another model.
[[nodiscard]] slimtrim::plan read_plan_file(std::string const& path, slimtrim::opened_model const& model);

/// Tells which engines will load what `plan` makes in `format`.
void note_loaders(session const& at, slimtrim::opened_model const& model, slimtrim::plan const& plan,
                  std::string const& format);

}  // namespace cli
