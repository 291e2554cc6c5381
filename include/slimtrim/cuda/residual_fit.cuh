// The moments of a residual fit in device memory: slimtrim::residual_moments, by cuBLAS and cuSOLVER.
#pragma once

#include <slimtrim/cuda/blas.cuh>
#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/cuda/factor.cuh>
#include <slimtrim/cuda/gram.cuh>
#include <slimtrim/cuda/rows.cuh>

#include <cmath>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

struct scaled_copy {
  device_matrix<float const> from;
  float factor;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = factor * from(i, j); }
};

struct add_matrix {
  device_matrix<float const> from;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) += from(i, j); }
};

// to = from + lambda I
struct add_ridge {
  device_matrix<float const> from;
  float lambda;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = i == j ? from(i, j) + lambda : from(i, j); }
};

[[nodiscard]] inline double inner_product(context& on, device_matrix<float const> A, device_matrix<float const> B) {
  return dot<float>(on, device_vector<float const>(A.data, A.size()), device_vector<float const>(B.data, B.size()));
}

}  // namespace detail

/// A matrix that owns its device memory, rows side by side.
class device_values {
 public:
  device_values() = default;
  device_values(index_t rows, index_t columns) : memory_(rows * columns), view_(memory_.data(), rows, columns) {}

  [[nodiscard]] bool empty() const { return view_.empty(); }
  [[nodiscard]] device_matrix<float> view() const { return view_; }

 private:
  device_buffer<float> memory_{};
  device_matrix<float> view_{};
};

/// slimtrim::residual_moments, whose members these are: gram = sum of z zᵀ: [in, in]; cross = sum of z eᵀ: [in, out]; energy =
/// sum of ||e||², on the host. Sums of floats in float, by cuBLAS; energies and inner products in double; systems are solved in
/// double. Memory: in (in + out) floats, solving 3 in² + 3 in out more. The same bits in every run on one device and library.
/// What returns a number waits for the device.
class device_moments {
 public:
  using change_type = device_values;

  double energy = 0;

  device_moments() = default;
  device_moments(context& on, index_t in, index_t out) : gram_(in, in), cross_(in, out) {
    for (device_values const* const sum : {&gram_, &cross_})
      check(cudaMemsetAsync(sum->view().data, 0, sizeof(float) * static_cast<std::size_t>(sum->view().size()), on.stream()),
            "cuda::device_moments");
  }
  [[nodiscard]] device_matrix<float const> gram() const { return gram_.view(); }
  [[nodiscard]] device_matrix<float const> cross() const { return cross_.view(); }

  /// Adds a batch. Z: [tokens, in], E: [tokens, out], both with contiguous rows side by side.
  void add(context& on, device_matrix<float const> Z, device_matrix<float const> E) {
    expects_equal(Z.extent(0), E.extent(0), "cuda::device_moments", "tokens of the residual");
    expects_equal(Z.extent(1), gram().extent(0), "cuda::device_moments", "features");
    expects_equal(E.extent(1), cross().extent(1), "cuda::device_moments", "outputs");
    expects(E.contiguous(), "cuda::device_moments", "residual: expected contiguous rows side by side");
    if (Z.extent(0) == 0) return;
    gram_update<float, float>(on, 1.0F, Z, transposed(gram_.view()));
    gemm<float, float>(on, 1.0F, transposed(Z), E, 1.0F, cross_.view());
    energy += detail::inner_product(on, E, E);
  }
  void add(context& on, device_moments const& other) {
    for (auto const& [to, from] : {std::pair{&gram_, &other.gram_}, std::pair{&cross_, &other.cross_}})
      for_each_element(on, to->view().extent(0), to->view().extent(1), false,
                       detail::add_matrix{as_const(from->view()), to->view()});
    energy += other.energy;
  }

  [[nodiscard]] double error_after(context& on, device_values const& change) const { return error_of(on, change.view(), 1.0F); }
  [[nodiscard]] bool finite(context& on) const {
    return std::isfinite(energy) && std::isfinite(detail::inner_product(on, gram(), gram())) &&
           std::isfinite(detail::inner_product(on, cross(), cross()));
  }
  [[nodiscard]] double mean_diagonal(context& on) const {
    index_t const in = gram().extent(0);
    if (in == 0) return 0;
    auto const diagonal = on.scratch_for<float>(in);
    copy_elements<float, float>(on, device_matrix<float const>(gram().data, {in, 1}, {in + 1, 1}),
                                device_matrix<float>(diagonal.data(), in, 1));
    double sum = 0;
    for (float const value : values_on_host(on.stream(), diagonal.data(), in)) sum += static_cast<double>(value);
    return sum / static_cast<double>(in);
  }
  [[nodiscard]] bool solve(context& on, double lambda, device_values& change) const {
    index_t const in = gram().extent(0), out = cross().extent(1);
    auto const memory = on.scratch_for<float>(in * in);
    device_matrix<float> const system(memory.data(), in, in);
    for_each_element(on, in, in, false, detail::add_ridge{gram(), static_cast<float>(lambda), system});
    change = device_values(in, out);
    copy_elements<float, float>(on, cross(), change.view());
    return solve_positive_definite<float>(on, system, change.view()) &&
           std::isfinite(detail::inner_product(on, as_const(change.view()), as_const(change.view())));
  }
  void take_back(context& on, device_values const& change) {
    energy = error_of(on, change.view(), -1.0F);
    gemm<float, float>(on, 1.0F, gram(), as_const(change.view()), 1.0F, cross_.view());
  }

 private:
  // ||E - sign D Z||² = energy - sign <D, 2 cross - sign gram D>.
  [[nodiscard]] double error_of(context& on, device_matrix<float const> change, float sign) const {
    auto const memory = on.scratch_for<float>(change.size());
    device_matrix<float> const both(memory.data(), change.extent(0), change.extent(1));
    copy_elements<float, float>(on, cross(), both);
    gemm<float, float>(on, -sign, gram(), change, 2.0F, both);
    return energy - static_cast<double>(sign) * detail::inner_product(on, change, as_const(both));
  }

  device_values gram_{}, cross_{};
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
