// A layer of two tokens and three experts small enough to score by hand; nobody chooses expert 2.
//
// | token | x'      | MoE     | s  | expert | p  | g (scale 2) | f        | |f| |
// |-------|---------|---------|----|--------|----|-------------|----------|-----|
// | 0     | (3, 4)  | (-3, 0) | .2 | 0      | .6 | 1.5         | (3, -4)  | 5   |
// | 0     |         |         |    | 1      | .2 | .5          | (0, 2)   | 2   |
// | 1     | (0, 15) | (0, 5)  | 0  | 1      | .5 | 2           | (-6, 8)  | 10  |
#pragma once

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>

#include <cstdint>
#include <vector>

namespace hand {

using namespace slimtrim;

inline layer_statistics layer(bool with_outputs = true) {
  std::vector<float> const probabilities{.6F, .2F, .2F, .25F, .5F, .25F}, weights{1.5F, .5F, 2, 0};
  std::vector<std::int32_t> const indices{0, 1, 1, -1};
  std::vector<float> const residual{3, 4, 0, 15}, moe{-3, 0, 0, 5}, after{0, 4, 0, 20};
  std::vector<float> const f0{3, -4}, f1{0, 2, -6, 8};
  std::vector<std::int32_t> const t0{0}, s0{0}, t1{0, 1}, s1{1, 0};
  auto const two = [](std::vector<float> const& v) { return matrix_view<float const>(v.data(), 2, 2); };
  auto const one = matrix_view<float const>(f0.data(), 1, 2);
  routing_view const routing{matrix_view<float const>(probabilities.data(), 2, 3),
                             matrix_view<std::int32_t const>(indices.data(), 2, 2), two(weights)};
  reference_backend const backend;
  layer_statistics s({.experts = 3, .hidden = 2, .outputs = with_outputs});
  s.router.add(routing);
  s.similarity.add(backend, {two(residual), two(residual), two(residual), two(moe), two(after)});
  s.norms.begin_window(2, 2);
  s.norms.add_outputs(backend, 0, t0, s0, one);
  s.norms.add_outputs(backend, 1, t1, s1, two(f1));
  s.norms.add(routing, s.similarity.change());
  if (with_outputs) {
    s.outputs->add(backend, 0, one);
    s.outputs->add(backend, 1, two(f1));
  }
  s.commit_window();
  return s;
}

/// Whether the three scores are these.
inline bool scores(std::vector<double> const& found, double a, double b, double c) {
  auto const close = [](double x, double y) { return x - y < 1e-6 && y - x < 1e-6; };
  return found.size() == 3 && close(found[0], a) && close(found[1], b) && close(found[2], c);
}

}  // namespace hand
