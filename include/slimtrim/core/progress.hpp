// How long-running calls tell their caller how far they are. The library itself never prints.
#pragma once

#include <slimtrim/core/index.hpp>

#include <functional>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// One report: `done` of `total` units of `stage`. `total` is 0 when it is not known, `unit` empty when it has no name.
struct progress {
  std::string_view stage;
  index_t done = 0;
  index_t total = 0;
  std::string_view unit;  ///< what is counted, in the plural: "layers", "tokens"
};

/// Called from the thread that called the library, often enough for a progress bar. It may throw `interrupted`:
/// the call then unwinds and leaves nothing under a final name. An empty function means nobody listens.
using progress_callback = std::function<void(progress const&)>;

inline void report_progress(progress_callback const& callback, std::string_view stage, index_t done, index_t total,
                            std::string_view unit = {}) {
  if (callback) callback({stage, done, total, unit});
}

}  // namespace v0
}  // namespace slimtrim
