// Where memory lives. It is part of every view's type, so that device memory cannot reach a host loop.
#pragma once

#include <slimtrim/core/config.hpp>

namespace slimtrim {
inline namespace v0 {

enum class space { host, device };

}  // namespace v0
}  // namespace slimtrim
