// Numbers of the input and of what was measured, in both directions.
#include <slimtrim/pipeline/decide/measurement.hpp>

#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace pipeline_decide_measurement_test {

using namespace slimtrim;

TEST_CASE("experts and neurons by the numbers of the input") {
  model_config const config = synth_config({.family = "mixtral", .layers = 3, .hidden = 32, .intermediate = 8, .experts = 4, .heads = 2, .vocabulary = 300});
  plan p = keep_everything(config);
  p.layer(0).block = false;
  p.layer(1).experts = {1, 3};
  p.layer(1).neurons = {{1, {0, 5}}, {3, {2, 6}}};
  measurement const m{empty_statistics(planned_config(config, p), "f", 4, {}), p};
  CHECK(&m.layer(1) == &m.statistics.layer(0));
  CHECK(&m.layer(2) == &m.statistics.layer(1));
  CHECK(m.position(1, 3) == 1);
  CHECK(m.position(2, 3) == 3);
  CHECK(m.positions(1, {1, 3}) == std::vector<index_t>{0, 1});
  CHECK(m.neuron_position(1, 3, 6) == 1);
  CHECK(m.neuron_position(1, 1, 0) == 0);
  CHECK(m.neuron_position(2, 1, 7) == 7);
}

}  // namespace pipeline_decide_measurement_test
