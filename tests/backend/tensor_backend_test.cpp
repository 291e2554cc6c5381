// Compile-time proof of what is a backend, what it reaches, and what has no default.
#include <doctest/doctest.h>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/backend/tensor_backend.hpp>

#include <type_traits>

namespace backend_tensor_backend_test {

using namespace slimtrim;

namespace {

// An engine's backend: ours with its own gemm.
struct engine_backend : reference_backend {
  mutable int calls = 0;
  template <class T>
  void gemm(T alpha, matrix_view<T const> A, matrix_view<T const> B, T beta, matrix_view<T> C) const {
    ++calls;
    reference_backend::gemm(alpha, A, B, beta, C);
  }
};
struct without_top_k : reference_backend {
  template <class T>
  void top_k(matrix_view<T const>, matrix_view<std::int32_t>) const = delete;
};
struct without_memory {};
struct on_device : reference_backend {
  static constexpr space memory = space::device;
};

template <class T>
concept complete = requires { sizeof(T); };

}  // namespace

static_assert(tensor_backend<reference_backend> && host_backend<reference_backend> && tensor_backend<engine_backend>);
static_assert(!tensor_backend<without_top_k> && !tensor_backend<without_memory> && !tensor_backend<int>);
// Members for host views do not make a device backend.
static_assert(!tensor_backend<on_device> && !host_backend<on_device>);
static_assert(reaches<reference_backend, matrix_view<float>> && !reaches<reference_backend, matrix_view<float, space::device>>);
// This file includes no header that defines a default.
static_assert(!complete<default_backend<space::host>> && !complete<default_backend<space::device>>);

TEST_CASE("an engine's member replaces ours") {
  float const a[1] = {2};
  float c[1] = {0};
  engine_backend const backend;
  backend.gemm(1.0F, matrix_view<float const>(a, 1, 1), matrix_view<float const>(a, 1, 1), 0.0F, matrix_view<float>(c, 1, 1));
  CHECK(c[0] == 4);
  CHECK(backend.calls == 1);
  CHECK(backend.run_on() == nullptr);
}

}  // namespace backend_tensor_backend_test
