// Experts on both sides and a routing that the test chooses, for the kernels behind moe_layer: what each of them leaves
// in the workspace and in Y against plain sums.
//
// The two products are checked apart. Hidden activations are compared with doubles; the result is compared with sums
// over the hidden activations that the device itself made, so that their rounding to T does not blur it.
#pragma once

#include "cuda/routing.hpp"
#include "cuda/weights.hpp"

#include <slimtrim/cuda/moe_view.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

namespace cuda_tests {

struct expert_shape {
  index_t hidden = 192, width = 64, experts = 4;
  index_t group = 128;      // columns that share a scale
  bool with_zeros = false;  // in every second expert
};

// Elements of tiles as doubles.
struct plain_weight {
  index_t columns = 0;
  std::vector<double> values{};
  explicit plain_weight(cuda::tile_weight_view const& w) : columns(w.columns) {
    for (index_t r = 0; r < w.rows; ++r)
      for (index_t c = 0; c < w.columns; ++c) values.push_back(static_cast<double>(cuda::element_at(w, r, c)));
  }
  [[nodiscard]] double operator()(index_t r, index_t c) const {
    return values[static_cast<std::size_t>(r * columns + c)];
  }
};

template <class T>
struct experts_on_both_sides {
  device_memory& device;
  expert_shape shape;
  std::vector<plain_weight> gate_up{}, down{};
  cuda::moe_layer_view<T> view{};

  experts_on_both_sides(device_memory& on, expert_shape const& of, cuda::tile_kind kind) : device(on), shape(of) {
    std::vector<cuda::tile_weight_view> first, second;
    for (index_t e = 0; e < of.experts; ++e) {
      auto const seed = static_cast<std::uint64_t>(10 * e + 1);
      cuda::host_tiles fused, out;
      if (kind == cuda::tile_kind::codes4) {
        bool const zeros = of.with_zeros && e % 2 == 0;
        code_matrix const gate(of.width, of.hidden, of.group, zeros, seed),
            up(of.width, of.hidden, of.group, zeros, seed + 1), back(of.hidden, of.width, of.group, zeros, seed + 2);
        cuda::fused_rows<cuda::code_rows<space::host>> const both{{gate.view}, {up.view}};
        fused = cuda::pack_tiles(both, cuda::plan_tiles(gate.view, cuda::tile_scale::bfloat16, true), zeros);
        out = cuda::pack_tiles(back.view);
      } else {
        auto const gate = halves(of.width, of.hidden, seed), up = halves(of.width, of.hidden, seed + 1);
        cuda::fused_rows<cuda::half_rows<T, space::host>> const both{{gate.view()}, {up.view()}};
        fused = cuda::pack_tiles(both, cuda::plan_tiles<T>(gate.view(), true), false);
        out = cuda::pack_tiles<T>(halves(of.hidden, of.width, seed + 2).view());
      }
      gate_up.emplace_back(fused.view);
      down.emplace_back(out.view);
      first.push_back(upload_tiles(on, fused));
      second.push_back(upload_tiles(on, out));
    }
    view.experts = of.experts;
    view.hidden = of.hidden;
    view.width = of.width;
    view.gate_up = on.keep<cuda::tile_weight_view>(first.data(), of.experts);
    view.down = on.keep<cuda::tile_weight_view>(second.data(), of.experts);
  }

  [[nodiscard]] cuda::moe_workspace<T> workspace(index_t tokens, index_t slots) const {
    return cuda::moe_workspace<T>(device.backend().on(), tokens, slots, shape.experts, shape.width, shape.hidden);
  }
  [[nodiscard]] cuda::moe_layer_view<T> with_slots(index_t slots) const {
    auto layer = view;
    layer.rule.top_k = slots;
    return layer;
  }

 private:
  static tensor<T, 2> halves(index_t rows, index_t columns, std::uint64_t seed) {
    tensor<T, 2> x(rows, columns);
    for (index_t i = 0; i < rows * columns; ++i)
      x.view().data[i] = T(static_cast<float>(0.05 * normal_at(seed, 3, static_cast<std::uint64_t>(i))));
    return x;
  }
};

// Pairs in the order of experts, by looking for each expert in turn.
struct listed_pairs {
  std::vector<std::int32_t> offsets{0}, pairs{}, position{}, active{};
  listed_pairs(tensor<std::int32_t, 2> const& indices, index_t experts) {
    index_t const count = indices.extent(0) * indices.extent(1);
    position.assign(static_cast<std::size_t>(count), -1);
    for (index_t e = 0; e < experts; ++e) {
      for (index_t p = 0; p < count; ++p) {
        if (indices.view().data[p] != e) continue;
        position[static_cast<std::size_t>(p)] = static_cast<std::int32_t>(pairs.size());
        pairs.push_back(static_cast<std::int32_t>(p));
      }
      if (static_cast<std::int32_t>(pairs.size()) > offsets.back()) active.push_back(static_cast<std::int32_t>(e));
      offsets.push_back(static_cast<std::int32_t>(pairs.size()));
    }
  }
  template <class T>
  void upload(device_memory& device, cuda::moe_workspace<T> const& work, tensor<float, 2> const& weights) const {
    auto const put = [&](std::vector<std::int32_t> const& from, std::int32_t* to) {
      cuda::copy_to_device(device.backend().on().stream(), from.data(), static_cast<index_t>(from.size()), to);
    };
    auto const groups = work.groups();
    put(offsets, groups.offsets);
    put(pairs, groups.pairs);
    put(position, groups.position);
    put(active, groups.active);
    put({static_cast<std::int32_t>(active.size())}, groups.active_count);
    cuda::copy_to_device(device.backend().on().stream(), weights.view().data, weights.extent(0) * weights.extent(1),
                         work.factors.data());
  }
};

// Half a unit in the last place of T, relative.
template <class T>
constexpr double unit_of() {
  return std::is_same_v<T, bfloat16> ? 0x1p-8 : 0x1p-11;
}

template <class T>
struct experts_check {
  // How the path under test is called.
  using call = std::function<void(cuda::moe_layer_view<T> const&, device_matrix<T const>, device_matrix<float>,
                                  cuda::moe_workspace<T> const&, bool accumulate)>;
  call run;
  // By how much the path rounds a weight, relative.
  double weight_rounding = 0;
  // Where it keeps column c of the hidden activations.
  std::function<index_t(index_t)> place = [](index_t c) { return c; };

  void operator()(experts_on_both_sides<T> const& all, routed const& chosen, bool accumulate = false,
                  backend_tests::layout how = backend_tests::layout::rows) const {
    device_memory& device = all.device;
    index_t const tokens = chosen.indices.extent(0), slots = chosen.indices.extent(1), hidden = all.shape.hidden,
                  width = all.shape.width;
    CAPTURE(tokens);
    listed_pairs const listed(chosen.indices, all.shape.experts);
    tensor<T, 2> X(tokens, hidden);
    for (index_t i = 0; i < tokens * hidden; ++i)
      X.view().data[i] = T(static_cast<float>(normal_at(5, 5, static_cast<std::uint64_t>(i))));
    tensor<float, 2> start(tokens, hidden);
    for (index_t i = 0; i < tokens * hidden; ++i)
      start.view().data[i] = accumulate ? static_cast<float>(i % 7) : std::nanf("");
    auto const work = all.workspace(tokens, slots);
    listed.upload(device, work, chosen.weights);
    auto const x = as_const(device.upload_matrix<T>(X));
    std::vector<float> found;
    for (int again = 0; again < 2; ++again) {  // the second call finds the workspace as the first one left it
      auto const Y = device.upload_matrix<float>(start, how);
      run(all.with_slots(slots), x, Y, work, accumulate);
      device.backend().synchronise();
      auto const values = device.download<float>(device_vector<float>(Y.data, tokens * hidden));
      if (again == 1 && !found.empty())
        REQUIRE(std::memcmp(values.data(), found.data(), sizeof(float) * values.size()) == 0);
      found = values;
    }
    auto const inner = device.download<T>(device_vector<T>(work.activations.data(), tokens * slots * width));
    check_inner(all, listed, X, slots, inner);
    check_result(all, listed, chosen, inner, start, accumulate, found, how);
  }

 private:
  // n products summed in float are off by (n + 3) 2^-24 of the sum of magnitudes, doubled for the tensor cores'
  // truncation; weights that the path rounds, by that.
  double of_sum(index_t n) const { return weight_rounding + 2 * static_cast<double>(n + 3) * 0x1p-24; }

  // silu's slope is below 1.1, so errors of gate and up reach the product as below; exponential, sum, quotient and
  // product add 2^-21 of it, and the rounding to T half a unit (float16 below 2^-14: 2^-25).
  void check_inner(experts_on_both_sides<T> const& all, listed_pairs const& listed, tensor<T, 2> const& X,
                   index_t slots, std::vector<T> const& inner) const {
    double worst = 0;
    for (index_t e = 0; e < all.shape.experts; ++e)
      for (index_t p = listed.offsets[static_cast<std::size_t>(e)]; p < listed.offsets[static_cast<std::size_t>(e) + 1];
           ++p) {
        index_t const token = listed.pairs[static_cast<std::size_t>(p)] / slots;
        plain_weight const& w = all.gate_up[static_cast<std::size_t>(e)];
        for (index_t f = 0; f < all.shape.width; ++f) {
          double sum[2] = {0, 0}, size[2] = {0, 0};
          for (int up = 0; up < 2; ++up)
            for (index_t c = 0; c < all.shape.hidden; ++c) {
              double const product =
                  static_cast<double>(static_cast<float>(X(token, c))) * w(f / 8 * 16 + f % 8 + 8 * up, c);
              sum[up] += product;
              size[up] += std::abs(product);
            }
          double const gate_off = of_sum(all.shape.hidden) * size[0], up_off = of_sum(all.shape.hidden) * size[1];
          double const silu = sum[0] / (1 + std::exp(-sum[0])), value = silu * sum[1];
          double off =
              1.1 * gate_off * (std::abs(sum[1]) + up_off) + std::abs(silu) * up_off + 0x1p-21 * std::abs(value);
          off += unit_of<T>() * (std::abs(value) + off) + 0x1p-25;
          auto const got = static_cast<float>(inner[static_cast<std::size_t>(p * all.shape.width + place(f))]);
          worst = std::max(worst, std::isnan(got) ? 1e30 : std::abs(static_cast<double>(got) - value) / off);
        }
      }
    CHECK(worst <= 1);
  }

  // A factor and each slot are one more rounding.
  void check_result(experts_on_both_sides<T> const& all, listed_pairs const& listed, routed const& chosen,
                    std::vector<T> const& inner, tensor<float, 2> const& start, bool accumulate,
                    std::vector<float> const& found, backend_tests::layout how) const {
    index_t const tokens = chosen.indices.extent(0), slots = chosen.indices.extent(1), hidden = all.shape.hidden;
    double worst = 0;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t c = 0; c < hidden; ++c) {
        double sum = accumulate ? static_cast<double>(start(t, c)) : 0.0, size = std::abs(sum);
        for (index_t s = 0; s < slots; ++s) {
          if (chosen.indices(t, s) < 0) continue;
          index_t const p = listed.position[static_cast<std::size_t>(t * slots + s)];
          for (index_t f = 0; f < all.shape.width; ++f) {
            double const product = static_cast<double>(chosen.weights(t, s)) *
                                   static_cast<double>(static_cast<float>(
                                       inner[static_cast<std::size_t>(p * all.shape.width + place(f))])) *
                                   all.down[static_cast<std::size_t>(chosen.indices(t, s))](c, f);
            sum += product;
            size += std::abs(product);
          }
        }
        float const got =
            found[static_cast<std::size_t>(how == backend_tests::layout::columns ? c * tokens + t : t * hidden + c)];
        double const off = of_sum(all.shape.width + slots + 2) * size;
        worst = std::max(worst, std::isnan(got) ? 1e30 : std::abs(static_cast<double>(got) - sum) / (off + 1e-30));
      }
    CHECK(worst <= 1);
  }
};

// Every token to one expert, in its only slot.
inline routed all_to(index_t tokens, index_t experts, std::int32_t expert) {
  routed chosen(tokens, experts, 1, 3);
  for (index_t t = 0; t < tokens; ++t) {
    chosen.indices(t, 0) = expert;
    chosen.weights(t, 0) = 0.5F + 0.01F * static_cast<float>(t);
  }
  return chosen;
}

}  // namespace cuda_tests
