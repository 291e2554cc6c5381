// Residual fitting expert by expert on the device: features are made from the stream by the kernels of the forward pass, and the
// stream, the residual and one expert's moments never leave the device while experts take turns.
#pragma once

#include <slimtrim/cuda/dense_mlp.cuh>
#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/cuda/model/device_layer.cuh>
#include <slimtrim/cuda/residual_fit.cuh>
#include <slimtrim/cuda/rms_norm.cuh>
#include <slimtrim/model/accelerator.hpp>
#include <slimtrim/recovery/expert_fit.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// to(i, j) = from(rows[i], j)
struct gather_row {
  device_matrix<float const> from;
  std::int32_t const* rows;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = from(rows[i], j); }
};

// to(rows[i], j) -= from(i, j); no row twice
struct subtract_from_row {
  device_matrix<float const> from;
  std::int32_t const* rows;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(rows[i], j) -= from(i, j); }
};

// to(i, j) = factors[i] from(i, j)
template <half_precision T>
struct scale_row {
  device_matrix<T const> from;
  float const* factors;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = factors[i] * static_cast<float>(from(i, j)); }
};

// to(i, j) = a(j, i) - b(j, i), where either may have no data: zeros
struct transposed_difference {
  device_matrix<float const> a, b;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const {
    to(i, j) = (a.data != nullptr ? a(j, i) : 0.0F) - (b.data != nullptr ? b(j, i) : 0.0F);
  }
};

struct split_device_moments {
  device_moments fitted, held_out;
  bool judged = false;
};

}  // namespace detail

/// The experts of one layer as slimtrim::detail::sweep_experts wants them. The layer, X and the residual outlive this.
template <half_precision T>
class experts_on_device {
 public:
  using change_type = device_values;

  context& on;

  /// X: [tokens, layer.padded_hidden] before the layer's second norm; residual: [tokens, hidden]; held_out: [tokens] or empty.
  experts_on_device(context& on_device, layer_shape const& shape, device_layer<T> const& layer, device_matrix<float const> X,
                    std::span<fitted_writer const> writers, device_matrix<float> residual, std::span<char const> held_out,
                    index_t rows_a_batch)
      : on(on_device), shape_(shape), layer_(layer), X_(X), residual_(residual), batch_(std::max<index_t>(rows_a_batch, 1)) {
    index_t widest = 0;
    for (fitted_writer const& writer : writers) {
      added_.push_back({writer, sorted(writer, held_out)});
      widest = std::max(widest, view_of(writer).width);
    }
    room_ = dense_workspace<T>(on, batch_, widest, shape.padded_hidden);
    outputs_ = device_buffer<float>(batch_ * shape.padded_hidden);
    features_ = device_buffer<float>(batch_ * widest);
  }

  /// Mean square of all features, over all tokens that reach any: sum of squares over the number of features.
  [[nodiscard]] double mean_square() const {
    double squares = 0;
    index_t width = 0;
    for (std::size_t e = 0; e < added_.size(); ++e) {
      width += added_[e].writer.weight.extent(1);
      for_batches(e, 0, added_[e].rows.count, [&](index_t, device_matrix<float const> Z) {
        squares += detail::inner_product(on, Z, Z);
      });
    }
    return width > 0 ? squares / static_cast<double>(width) : 0.0;
  }

  [[nodiscard]] bool reached(std::size_t e) const {
    return added_[e].rows.count > 0 && added_[e].writer.weight.extent(1) > 0;
  }
  [[nodiscard]] detail::split_device_moments moments(std::size_t e) const {
    fitted_writer const& writer = added_[e].writer;
    row_list const& all = added_[e].rows;
    index_t const in = writer.weight.extent(1), out = residual_.extent(1);
    detail::split_device_moments made{device_moments(on, in, out), {}, all.count > all.fitted};
    if (made.judged) made.held_out = device_moments(on, in, out);
    auto const memory = on.scratch_for<float>(batch_ * out);
    auto const add = [&](device_moments& to, index_t first, index_t last) {
      for_batches(e, first, last, [&](index_t at, device_matrix<float const> Z) {
        device_matrix<float> const E(memory.data(), Z.extent(0), out);
        for_each_element(on, Z.extent(0), out, false, detail::gather_row{as_const(residual_), all.tokens.data() + at, E});
        to.add(on, Z, as_const(E));
      });
    };
    add(made.fitted, 0, all.fitted);
    if (made.judged) add(made.held_out, all.fitted, all.count);
    return made;
  }
  void move(std::size_t e, device_values const& from, device_values const& to) const {
    fitted_writer const& writer = added_[e].writer;
    row_list const& all = added_[e].rows;
    index_t const in = writer.weight.extent(1), out = residual_.extent(1);
    auto const step_memory = on.scratch_for<float>(in * out), moved_memory = on.scratch_for<float>(batch_ * out);
    device_matrix<float> const step(step_memory.data(), out, in);
    for_each_element(on, out, in, false, detail::transposed_difference{as_const(to.view()), as_const(from.view()), step});
    for_batches(e, 0, all.count, [&](index_t at, device_matrix<float const> Z) {
      device_matrix<float> const moved(moved_memory.data(), Z.extent(0), out);
      gemm<float, float>(on, 1.0F, Z, transposed(as_const(step)), 0.0F, moved);
      for_each_element(on, Z.extent(0), out, false,
                       detail::subtract_from_row{as_const(moved), all.tokens.data() + at, residual_});
    });
    index_t const rows_a_piece = std::clamp<index_t>((index_t{4} << 20) / in, 1, out);
    std::vector<float> piece(static_cast<std::size_t>(rows_a_piece * in));
    for (index_t first = 0; first < out; first += rows_a_piece) {
      index_t const count = std::min(rows_a_piece, out - first);
      copy_to_host(on.stream(), step.data + first * in, count * in, piece.data());
      for (index_t i = 0; i < count; ++i)
        for (index_t j = 0; j < in; ++j) writer.weight(first + i, j) += piece[static_cast<std::size_t>(i * in + j)];
    }
  }

 private:
  // An expert's rows, those that are fitted to before those that judge.
  struct row_list {
    index_t count = 0, fitted = 0;
    device_buffer<std::int32_t> tokens{};
    device_buffer<float> factors{};
  };
  struct reached_writer {
    fitted_writer writer;
    row_list rows;
  };

  [[nodiscard]] row_list sorted(fitted_writer const& writer, std::span<char const> held_out) const {
    row_list list;
    std::vector<std::int32_t> tokens;
    std::vector<float> factors;
    for (bool const judging : {false, true}) {
      for (std::size_t i = 0; i < writer.tokens.size(); ++i) {
        auto const token = static_cast<std::size_t>(writer.tokens[i]);
        if ((!held_out.empty() && held_out[token] != 0) != judging) continue;
        tokens.push_back(writer.tokens[i]);
        factors.push_back(writer.factors[i]);
      }
      if (!judging) list.fitted = static_cast<index_t>(tokens.size());
    }
    list.count = static_cast<index_t>(tokens.size());
    list.tokens = device_buffer<std::int32_t>(list.count);
    list.factors = device_buffer<float>(list.count);
    copy_to_device(on.stream(), tokens.data(), list.count, list.tokens.data());
    copy_to_device(on.stream(), factors.data(), list.count, list.factors.data());
    check(cudaStreamSynchronize(on.stream()), "cuda::experts_on_device");  // the vectors end here
    return list;
  }
  [[nodiscard]] device_experts<T> const& experts_of(fitted_writer const& writer) const {
    return writer.expert >= 0 ? *layer_.routed : *layer_.every_token;
  }
  // The writer's expert as a layer of one.
  [[nodiscard]] moe_layer_view<T> view_of(fitted_writer const& writer) const {
    moe_layer_view<T> const& all = experts_of(writer).view;
    index_t const e = std::max<index_t>(writer.expert, 0);
    moe_layer_view<T> one;
    one.rule.top_k = 1;
    one.experts = 1;
    one.hidden = all.hidden;
    one.width = all.width;
    one.gate_up = all.gate_up + e;
    one.down = all.down + e;
    return one;
  }
  // use(first, Z) for features of rows first .. of the list, batch by batch; Z: [rows, in].
  template <class Use>
  void for_batches(std::size_t e, index_t first, index_t last, Use&& use) const {
    fitted_writer const& writer = added_[e].writer;
    row_list const& all = added_[e].rows;
    moe_layer_view<T> const view = view_of(writer);
    index_t const in = writer.weight.extent(1), padded = shape_.padded_hidden;
    auto const rows_memory = on.scratch_for<float>(batch_ * padded);
    auto const normed_memory = on.scratch_for<T>(batch_ * padded);
    for (index_t at = first; at < last; at += batch_) {
      index_t const n = std::min(batch_, last - at);
      device_matrix<float> const S(rows_memory.data(), n, padded), Y(outputs_.data(), n, padded), Z(features_.data(), n, in);
      device_matrix<T> const N(normed_memory.data(), n, padded);
      for_each_element(on, n, padded, false, detail::gather_row{X_, all.tokens.data() + at, S});
      add_and_normalise<T>(on, S, {}, as_const(layer_.feed_forward_norm.view()), shape_.epsilon, N);
      experts_of(writer).kind == tile_kind::codes4
          ? dense_mlp<T, tile_kind::codes4, float>(on, view, as_const(N), Y, room_)
          : dense_mlp<T, detail::half_kind<T>, float>(on, view, as_const(N), Y, room_);
      device_matrix<T const> const H(room_.activations.data(), n, view.width);
      for_each_element(on, n, in, false, detail::scale_row<T>{columns(H, 0, in), all.factors.data() + at, Z});
      use(at, as_const(Z));
    }
  }

  layer_shape const& shape_;
  device_layer<T> const& layer_;
  device_matrix<float const> X_;
  device_matrix<float> residual_;
  index_t batch_;
  std::vector<reached_writer> added_{};
  moe_workspace<T> room_{};
  device_buffer<float> outputs_{}, features_{};
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
