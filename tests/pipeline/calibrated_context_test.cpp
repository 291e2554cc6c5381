#include <slimtrim/pipeline/calibrated_context.hpp>

#include <pipeline/support.hpp>

#include <doctest/doctest.h>

namespace pipeline_calibrated_context_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("which modules want scales") {
  auto const wants = [](std::string const& recipe, std::string const& stem) {
    plan const p = slim_plan(bundled().config, recipe);
    for (slimmed_module const& m : list_output_modules(*bundled().files, bundled().config, p, scale_type::bfloat16).slimmed)
      if (m.stem == stem) return wants_scales(&m);
    return wants_scales(nullptr);
  };
  std::string const query = "model.layers.0.self_attn.q_proj";
  CHECK(wants("awq:4g128", query));
  CHECK(wants("awq:4g128+gptq:4g128", query));
  CHECK_FALSE(wants("gptq:4g128", query));
  CHECK_FALSE(wants("wanda:50%", query));
  CHECK_FALSE(wants("awq:4g128", "model.layers.0.input_layernorm"));
}

TEST_CASE("a fit's report") {
  ordered_json const report = detail::fit_json({.changed = true, .ridge = 0.1, .energy = 4, .error = 3, .held_out_energy = 2, .held_out_error = 1});
  CHECK(report.dump() == R"({"changed":true,"ridge":0.1,"residual":4.0,"left":3.0,"held_out_residual":2.0,"held_out_left":1.0})");
}

}  // namespace pipeline_calibrated_context_test
