// How the device slims matrices, compiled by itself.
#pragma once

namespace slimtrim {
inline namespace v0 {
namespace cuda {
struct slimming_functions;
}
}  // namespace v0
}  // namespace slimtrim

namespace cli {

[[nodiscard]] slimtrim::cuda::slimming_functions slimming_on_device();

}  // namespace cli
