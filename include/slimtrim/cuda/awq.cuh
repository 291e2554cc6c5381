// AWQ on the device: ranges clipped group by group, errors in Gram form.
//
// Only the diagonal blocks of the Hessian are needed: a block of threads keeps one of them in shared memory, and a warp
// tries all candidates of one row, four at a time so that an element of the Hessian is read once for four.
#pragma once

#include <slimtrim/cuda/awq_search.cuh>
#include <slimtrim/cuda/backend.cuh>
#include <slimtrim/cuda/codes.cuh>
#include <slimtrim/cuda/reduce.cuh>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// How the clip search's kernel is shaped.
struct clip_shape {
  static constexpr int warps = 8, most_group = 128, at_once = 4;
  // The block of the Hessian, and for each warp the errors of four candidates side by side.
  static constexpr std::size_t shared_bytes =
      sizeof(float) * static_cast<std::size_t>(most_group * most_group + warps * most_group * at_once);
};

// Grid: 64 rows, group. For each row the range factor with the least d H_gg dᵀ, d = w' - Q(w'; range * factor).
static __global__ void __launch_bounds__(32 * clip_shape::warps)
    clip_groups(device_matrix<float const> W, device_matrix<float const> H, device_vector<float const> s, scale_fit fit,
                int candidates, double lowest_factor, device_matrix<float> scales, device_matrix<std::uint8_t> zeros) {
  constexpr int at_once = clip_shape::at_once, held = clip_shape::most_group / 32;
  auto* const block = reinterpret_cast<float*>(shared_memory());
  int const lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  float* const errors =
      block + clip_shape::most_group * clip_shape::most_group + warp * clip_shape::most_group * at_once;
  index_t const g = blockIdx.y, start = g * fit.group, rest = W.extent(1) - start;
  int const m = static_cast<int>(rest < fit.group ? rest : fit.group);
  for (int i = static_cast<int>(threadIdx.x); i < m * m; i += 32 * clip_shape::warps) {
    int const a = i / m, b = i - a * m;
    block[a * clip_shape::most_group + b] = H(start + a, start + b) / (s(start + a) * s(start + b));
  }
  sync_block();
  index_t const first = static_cast<index_t>(blockIdx.x) * 64,
                last = first + 64 < W.extent(0) ? first + 64 : W.extent(0);
  for (index_t row = first + warp; row < last; row += clip_shape::warps) {
    float w[held], low = 0, high = 0;
#pragma unroll
    for (int h = 0; h < held; ++h) {
      int const i = lane + 32 * h;
      w[h] = i < m ? W(row, start + i) : 0.0F;
      low = w[h] < low ? w[h] : low;
      high = w[h] > high ? w[h] : high;
    }
    for (int mask = 16; mask > 0; mask /= 2) {
      float const other_low = shuffle_xor(low, mask), other_high = shuffle_xor(high, mask);
      low = other_low < low ? other_low : low;
      high = other_high > high ? other_high : high;
    }
    scale_and_zero best{};
    float least = 0;
    scale_and_zero of_lane{};
    for (int k = 0; k <= candidates; k += at_once) {
      // Each lane works out one candidate's scale, in double, 32 candidates at a time.
      if (k % 32 == 0) {
        float const factor =
            static_cast<float>(1.0 - (1.0 - lowest_factor) * (k + lane) / (candidates > 1 ? candidates : 1));
        of_lane = fit.grid.from_range(low * factor, high * factor, fit.stored_as);
      }
      scale_and_zero at[at_once];
#pragma unroll
      for (int q = 0; q < at_once; ++q) {
        at[q] = {shuffle(of_lane.scale, k % 32 + q), shuffle(of_lane.zero, k % 32 + q)};
#pragma unroll
        for (int h = 0; h < held; ++h)
          errors[(lane + 32 * h) * at_once + q] = w[h] - fit.grid.decode(fit.grid.encode(w[h], at[q]), at[q]);
      }
      sync_warp();
      float moved[held][at_once] = {};
      for (int a = 0; a < m; ++a) {
        words4 const d = *reinterpret_cast<words4 const*>(errors + a * at_once);
#pragma unroll
        for (int h = 0; h < held; ++h) {
          float const element = lane + 32 * h < m ? block[a * clip_shape::most_group + lane + 32 * h] : 0.0F;
#pragma unroll
          for (int q = 0; q < at_once; ++q) moved[h][q] += bits_as<float>(d.word[q]) * element;
        }
      }
#pragma unroll
      for (int q = 0; q < at_once; ++q) {
        float loss = 0;
#pragma unroll
        for (int h = 0; h < held; ++h)
          if (lane + 32 * h < m) loss += errors[(lane + 32 * h) * at_once + q] * moved[h][q];
        loss = sum_of_warp(loss);
        if (k + q <= candidates && (k + q == 0 || loss < least)) {
          least = loss;
          best = at[q];
        }
      }
      sync_warp();
    }
    if (lane != 0) continue;
    scales(row, g) = best.scale;
    if (zeros.data != nullptr) zeros(row, g) = static_cast<std::uint8_t>(best.zero);
  }
}

template <class T>
struct scale_columns {
  device_matrix<T const> W;
  device_vector<float const> s;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = static_cast<float>(W(i, j)) * s(j); }
};

}  // namespace detail

/// slimtrim::awq for a weight in device memory; the result is in host memory. Groups of at most 128 columns where
/// ranges are clipped. Sums are float in another order than the host's, so two factors of nearly the same error may
/// change places, and rows of nearly the same error sides. Waits for the device. Scratch: 6 bytes an element, 4096 rows
/// of floats.
template <class T>
[[nodiscard]] quantized_matrix awq(context& on, device_matrix<T const> W, device_matrix<float const> hessian,
                                   std::vector<float> const& scales = {}, awq_options const& options = {},
                                   device_matrix<float const> judge = {}, index_t* rows_kept = nullptr) {
  index_t const n = W.extent(0), c = W.extent(1), group = options.groups.block_columns(c),
                groups = options.groups.groups(c);
  expects_equal(hessian.extent(0), c, "cuda::awq", "rows of the Hessian");
  expects_equal(hessian.extent(1), c, "cuda::awq", "columns of the Hessian");
  expects(options.groups.kind != group_kind::tensor, "cuda::awq",
          "one scale for a whole matrix is not supported on the device");
  expects(!options.clip || group <= detail::clip_shape::most_group, "cuda::awq",
          "groups to clip: expected at most 128 columns");
  if (!scales.empty()) expects_equal(static_cast<long long>(scales.size()), c, "cuda::awq", "channel scales");
  for (float const one : scales)
    expects(one > 0 && std::isfinite(one), "cuda::awq", "channel scales must be positive and finite");
  expect_finite<T>(on, W, "cuda::awq");
  quantized_matrix out(n, c, options.grid, options.groups, options.scales_stored_as);
  if (rows_kept != nullptr) *rows_kept = n;
  if (n == 0 || c == 0) return out;
  bool const with_zeros = !options.grid.symmetric;

  std::vector<float> ones(static_cast<std::size_t>(c), 1.0F);
  std::vector<std::int32_t> natural(static_cast<std::size_t>(c));
  std::iota(natural.begin(), natural.end(), 0);
  auto const divisors = on.scratch_for<float>(c);
  auto const place = on.scratch_for<std::int32_t>(c);
  copy_to_device(on.stream(), scales.empty() ? ones.data() : scales.data(), c, divisors.data());
  copy_to_device(on.stream(), natural.data(), c, place.data());
  device_vector<float const> const s(divisors.data(), c);
  auto const memory = on.scratch_for<float>(n * c);
  device_matrix<float> const scaled(memory.data(), n, c);
  for_each_element(on, n, c, false, detail::scale_columns<T>{W, s, scaled});

  scale_fit const fit{options.grid, group, scale_rule::absmax, options.scales_stored_as, {}};
  struct version {
    scratch<float> scales;
    scratch<std::uint8_t> zeros, codes;
  };
  auto const make = [&] {
    return version{on.scratch_for<float>(n * groups), on.scratch_for<std::uint8_t>(with_zeros ? n * groups : 0),
                   on.scratch_for<std::uint8_t>(n * c)};
  };
  index_t const sizes[2] = {n, groups}, steps[2] = {1, n};
  auto const scales_of_version = [&](version const& v) { return device_matrix<float>(v.scales.data(), sizes, steps); };
  auto const zeros_of_version = [&](version const& v) {
    return with_zeros ? device_matrix<std::uint8_t>(v.zeros.data(), sizes, steps) : device_matrix<std::uint8_t>{};
  };
  auto const by = [&](version const& v) {
    return detail::group_scales{v.scales.data(), with_zeros ? v.zeros.data() : nullptr, n};
  };
  auto const encode = [&](version const& v) {
    for_each_element(on, n, c, false,
                     detail::encode_element<float>{as_const(scaled), options.grid, group, 0, by(v),
                                                   device_matrix<std::uint8_t>(v.codes.data(), n, c), place.data()});
  };
  version const plain = make();
  fit_scales<float>(on, as_const(scaled), fit, {}, scales_of_version(plain), zeros_of_version(plain));
  encode(plain);
  version const* chosen = &plain;
  version const clipped = make();
  if (options.clip && first_not_finite<float>(on, hessian) < 0) {
    launch(on.stream(),
           {dim3(blocks_for(ceil_div(n, 64)), blocks_for(groups)), 32 * detail::clip_shape::warps,
            detail::clip_shape::shared_bytes},
           detail::clip_groups, as_const(scaled), hessian, s, fit, options.clip_candidates, options.clip_lowest,
           scales_of_version(clipped), zeros_of_version(clipped));
    encode(clipped);
    chosen = &clipped;
    index_t kept = 0;
    device_matrix<float const> const by_judge = judge.data != nullptr ? judge : hessian;
    if (first_not_finite<float>(on, by_judge) < 0) {
      constexpr index_t strip = 2048;
      index_t const most = n < strip ? n : strip;
      auto const difference = on.scratch_for<float>(most * c), product = on.scratch_for<float>(most * c),
                 errors = on.scratch_for<float>(2 * n);
      for (index_t first = 0; first < n; first += strip)
        for (version const* v : {&plain, &clipped}) {
          index_t const height = n - first < strip ? n - first : strip;
          device_matrix<float> const D(difference.data(), height, c), P(product.data(), height, c);
          for_each_element(
              on, height, c, false,
              detail::error_element<float>{as_const(slimtrim::rows(scaled, first, height)), options.grid, group, first,
                                           by(*v), device_matrix<std::uint8_t const>(v->codes.data(), n, c),
                                           place.data(), D, divisors.data()});
          gemm<float, float>(on, 1.0F, as_const(D), by_judge, 0.0F, P);
          row_dots<float>(on, as_const(D), as_const(P),
                          device_vector<float>(errors.data() + (v == &plain ? 0 : n) + first, height));
        }
      for_each_element(
          on, n, c, false,
          detail::keep_rounded<std::uint8_t>{errors.data(), errors.data() + n, plain.codes.data(), clipped.codes.data(), c});
      for_each_element(on, groups, n, false,
                       detail::keep_rounded_scales{errors.data(), errors.data() + n, by(plain), by(clipped)});
      std::vector<float> found(static_cast<std::size_t>(2 * n));
      copy_to_host(on.stream(), errors.data(), 2 * n, found.data());
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i)
        kept += found[i] < found[i + static_cast<std::size_t>(n)];
    }
    if (rows_kept != nullptr) *rows_kept = kept;
  }
  detail::download_codes(on, chosen->codes.data(), place.data(), as_const(scales_of_version(*chosen)),
                         as_const(zeros_of_version(*chosen)), out);
  return out;
}

}  // namespace cuda

/// AWQ of one weight in device memory, through the name that all backends share; see cuda::awq.
template <class T>
[[nodiscard]] quantized_matrix awq(cuda_backend const& backend, device_matrix<T const> weight,
                                   device_matrix<float const> hessian, std::vector<float> const& scales = {},
                                   awq_options const& options = {}, device_matrix<float const> judge = {},
                                   index_t* rows_kept = nullptr) {
  return cuda::awq<T>(backend.on(), weight, hessian, scales, options, judge, rows_kept);
}

}  // namespace v0
}  // namespace slimtrim
