// The engine's main job and the search for the best way to do it, apart from the rest so that both compile at the same time.

#include "engine_backend.hpp"

namespace cli {

slimtrim::compress_result engine::compress(slimtrim::opened_model const& input, slimtrim::plan const& plan,
                                           std::string const& out, slimtrim::compress_options const& options) const {
  slimtrim::compress_options within = options;
  within.progress = at_.progress;
  within.calibrated.hessian_bytes = memory_;
  return slimtrim::compress(state_->backend, input, plan, out, within);
}

slimtrim::search_result engine::search(slimtrim::opened_model const& model, slimtrim::model_statistics const* statistics,
                                       slimtrim::token_windows const& windows, slimtrim::search_options const& options) const {
  return slimtrim::search(state_->backend, model, statistics, windows, options);
}

}  // namespace cli
