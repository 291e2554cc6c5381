// The Hessian of a linear layer made fit for a column sweep, on the device: what slimtrim::prepare_hessian does, with
// the diagonal on the host, where the order is decided, and everything of c² elements on the device.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/cuda/factor.cuh>
#include <slimtrim/slim/hessian.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// Raises *at to the number of elements at and behind the first (in row-major order) that is not finite.
template <class T>
struct find_not_finite {
  device_matrix<T const> X;
  unsigned long long* at;
  __device__ void operator()(index_t i, index_t j) const {
    float const value = static_cast<float>(X(i, j));
    if (!(value - value == 0))
      raise_to(at, static_cast<unsigned long long>(X.extent(0) * X.extent(1) - (i * X.extent(1) + j)));
  }
};

// The Hessian in sweep order, its mean diagonal one, damped; columns without activity apart from all others.
struct arrange_hessian {
  device_matrix<float const> H;
  std::int32_t const* order;
  std::uint8_t const* dead;  // by column
  double inverse_unit;
  float damp;
  device_matrix<float> out;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const {
    index_t const from = order[i], to = order[j];
    float value = i == j ? 1.0F : 0.0F;
    if (dead[from] == 0 && dead[to] == 0) {
      value = static_cast<float>(static_cast<double>(H(from, to)) * inverse_unit);
      if (i == j) value += damp;
    }
    out(i, j) = value;
  }
};

}  // namespace detail

/// The place, row-major, of the first element of X that is NaN or infinite, or -1. Waits for the device. One read of X.
template <class T>
[[nodiscard]] index_t first_not_finite(context& on, device_matrix<T const> X) {
  if (X.size() == 0) return -1;
  auto const found = on.scratch_for<unsigned long long>(1);
  check(cudaMemsetAsync(found.data(), 0, sizeof(unsigned long long), on.stream()), "cuda::first_not_finite");
  for_each_element(on, X.extent(0), X.extent(1), X.stride(0) < X.stride(1),
                   detail::find_not_finite<T>{X, found.data()});
  unsigned long long behind = 0;
  copy_to_host(on.stream(), found.data(), 1, &behind);
  return behind == 0 ? -1 : X.size() - static_cast<index_t>(behind);
}

/// Throws `input_error` that names the first element of W that is NaN or infinite. Waits for the device. One read of W.
template <class T>
void expect_finite(context& on, device_matrix<T const> W, char const* where) {
  if (index_t const at = first_not_finite<T>(on, W); at >= 0)
    throw input_error(std::string(where) + ": W[" + std::to_string(at / W.extent(1)) + ", " +
                      std::to_string(at % W.extent(1)) + "]: expected a finite value");
}

/// The diagonal of a square matrix, in host memory. Waits for the device.
[[nodiscard]] inline std::vector<float> download_diagonal(context& on, device_matrix<float const> H) {
  index_t const c = H.extent(0), sizes[2] = {c, 1}, steps[2] = {H.stride(0) + H.stride(1), 1};
  auto const gathered = on.scratch_for<float>(c);
  copy_elements<float, float>(on, device_matrix<float const>(H.data, sizes, steps),
                              device_matrix<float>(gathered.data(), c, 1));
  std::vector<float> found(static_cast<std::size_t>(c));
  copy_to_host(on.stream(), gathered.data(), c, found.data());
  return found;
}

/// What prepare_hessian found, in host memory: slimtrim::prepared_hessian without its matrices.
struct prepared_order {
  bool usable = false;
  bool finite = true;
  double unit = 0;
  double damp = 0;
  int damp_step = 0;
  index_t dead = 0;
  std::vector<std::int32_t> order{};    // [c] position in the sweep -> column
  std::vector<std::uint8_t> is_dead{};  // [c] by column
};

/// factor = R with (P (H / unit) Pᵀ + damp)⁻¹ = Rᵀ R, in sweep order; see slimtrim::prepare_hessian, of which this
/// keeps every rule. Deviation: the factor is always formed in double. H: [c, c]; factor: [c, c], of no use where the
/// result is not usable. Scratch: c² floats and 2 c² doubles. Waits for the device.
[[nodiscard]] inline prepared_order prepare_hessian(context& on, device_matrix<float const> H, column_order order,
                                                    damping const& ladder, device_matrix<float> factor) {
  index_t const c = H.extent(0);
  expects_equal(H.extent(1), c, "cuda::prepare_hessian", "columns of a square Hessian");
  expects_equal(factor.extent(0), c, "cuda::prepare_hessian", "rows of the factor");
  expects_equal(factor.extent(1), c, "cuda::prepare_hessian", "columns of the factor");
  prepared_order out;
  out.order.resize(static_cast<std::size_t>(c));
  std::iota(out.order.begin(), out.order.end(), 0);
  out.is_dead.assign(static_cast<std::size_t>(c), 0);
  out.finite = first_not_finite<float>(on, H) < 0;
  if (c == 0 || !out.finite) return out;
  std::vector<float> const d = download_diagonal(on, H);
  double sum = 0;
  for (std::size_t i = 0; i < d.size(); ++i) {
    out.is_dead[i] = d[i] > 0 ? 0 : 1;
    out.dead += out.is_dead[i];
    sum += d[i] > 0 ? static_cast<double>(d[i]) : 0.0;
  }
  if (out.dead == c) return out;
  out.unit = sum / static_cast<double>(c - out.dead);
  double const inverse = 1.0 / out.unit;
  if (!std::isfinite(inverse)) return out;
  if (order == column_order::activation)
    std::stable_sort(out.order.begin(), out.order.end(), [&](std::int32_t a, std::int32_t b) {
      return d[static_cast<std::size_t>(a)] > d[static_cast<std::size_t>(b)];
    });
  auto const positions = on.scratch_for<std::int32_t>(c);
  auto const dead = on.scratch_for<std::uint8_t>(c);
  copy_to_device(on.stream(), out.order.data(), c, positions.data());
  copy_to_device(on.stream(), out.is_dead.data(), c, dead.data());
  auto const memory = on.scratch_for<float>(c * c);
  device_matrix<float> const damped(memory.data(), c, c);
  double damp = ladder.first;
  for (out.damp_step = 0; out.damp_step <= ladder.steps; ++out.damp_step, damp *= 10) {
    for_each_element(
        on, c, c, false,
        detail::arrange_hessian{H, positions.data(), dead.data(), inverse, static_cast<float>(damp), damped});
    if (!inverse_factor<float>(on, as_const(damped), factor)) continue;
    out.damp = damp;
    out.usable = true;
    break;
  }
  return out;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
