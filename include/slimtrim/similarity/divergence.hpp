// How far two models' next-token distributions are apart, from their logits.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/tensor/adapt.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace slimtrim {
inline namespace v0 {

namespace detail {

template <class View>
[[nodiscard]] double log_sum_exp(View logits, char const* name) {
  double largest = -HUGE_VAL;
  for (index_t i = 0; i < logits.extent(0); ++i) {
    double const value = static_cast<double>(static_cast<float>(logits(i)));
    if (!std::isfinite(value))
      throw numeric_error(std::string("divergence: ") + name + "[" + std::to_string(i) + "]: expected a finite logit");
    largest = std::max(largest, value);
  }
  double sum = 0;
  for (index_t i = 0; i < logits.extent(0); ++i)
    sum += std::exp(static_cast<double>(static_cast<float>(logits(i))) - largest);
  return largest + std::log(sum);
}

}  // namespace detail

/// KL(p || q) = sum_i p_i (ln p_i - ln q_i) in nats, p = softmax(base), q = softmax(changed); not below 0.
///
/// base, changed: [vocabulary], float or 16-bit logits in host memory. Log-softmax in double, in index order. Cost two
/// passes. Deterministic. Throws `error` on different or zero lengths, `numeric_error` on NaN or infinity.
template <vector_like P, vector_like Q>
[[nodiscard]] double kl_divergence(P&& base, Q&& changed) {
  auto const p = as_const_vector(base);
  auto const q = as_const_vector(changed);
  static_assert(decltype(p)::memory == space::host && decltype(q)::memory == space::host,
                "kl_divergence: logits must be in host memory");
  expects(p.extent(0) > 0, "kl_divergence", "expected at least one logit");
  expects_equal(q.extent(0), p.extent(0), "kl_divergence", "length of changed");
  double const p_norm = detail::log_sum_exp(p, "base"), q_norm = detail::log_sum_exp(q, "changed");
  double sum = 0;
  for (index_t i = 0; i < p.extent(0); ++i) {
    double const log_p = static_cast<double>(static_cast<float>(p(i))) - p_norm;
    double const log_q = static_cast<double>(static_cast<float>(q(i))) - q_norm;
    sum += std::exp(log_p) * (log_p - log_q);
  }
  return std::max(0.0, sum);
}

/// Whether both rows have their largest logit at the same place; ties to the lower index. Errors as `kl_divergence`,
/// except that infinities are allowed and NaN is never the largest.
template <vector_like P, vector_like Q>
[[nodiscard]] bool same_top_1(P&& base, Q&& changed) {
  auto const p = as_const_vector(base);
  auto const q = as_const_vector(changed);
  static_assert(decltype(p)::memory == space::host && decltype(q)::memory == space::host,
                "same_top_1: logits must be in host memory");
  expects(p.extent(0) > 0, "same_top_1", "expected at least one logit");
  expects_equal(q.extent(0), p.extent(0), "same_top_1", "length of changed");
  auto const top = [](auto view) {
    index_t best = 0;
    for (index_t i = 1; i < view.extent(0); ++i) {
      float const value = static_cast<float>(view(i)), leader = static_cast<float>(view(best));
      if (value > leader || (std::isnan(leader) && !std::isnan(value))) best = i;
    }
    return best;
  };
  return top(p) == top(q);
}

}  // namespace v0
}  // namespace slimtrim
