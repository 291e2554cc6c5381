// In which order a column sweep takes the columns.
#pragma once

namespace slimtrim {
inline namespace v0 {

/// automatic: activation at 3 bits and more, natural below, where searched scales lose more to a fixed order of groups
/// than the order of columns gains.
enum class sweep_order { automatic, natural, activation };

}  // namespace v0
}  // namespace slimtrim
