#include "backend/backend_suite.hpp"

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <cstring>
#include <type_traits>
#include <vector>

namespace backend_eigen_test {

using namespace slimtrim;

namespace {

struct eigen_on_two_threads : backend_tests::host_memory {
  static constexpr space memory = space::host;
  static constexpr double factor_roundoff = 0x1p-53;
  [[nodiscard]] eigen_backend const& backend() const { return backend_; }

 private:
  thread_pool pool_{2};
  eigen_backend backend_{pool_};
};

// All results of all primitives, one after another, as bytes.
template <class T>
std::vector<unsigned char> all_results(eigen_backend const& backend) {
  index_t const n = 413, k = 521, m = 389;
  auto const operand_of = [](index_t rows, index_t columns, std::uint64_t stream) {
    tensor<T, 2> x(rows, columns);
    for (index_t i = 0; i < rows * columns; ++i)
      x.view().data[i] = static_cast<T>(normal_at(1, stream, static_cast<std::uint64_t>(i)));
    return x;
  };
  std::vector<unsigned char> bytes;
  auto const keep = [&](auto const* data, index_t count) {
    auto const* const begin = reinterpret_cast<unsigned char const*>(data);
    bytes.insert(bytes.end(), begin, begin + static_cast<std::size_t>(count) * sizeof(*data));
  };
  auto const A = operand_of(n, k, 1), B = operand_of(k, m, 2), X = operand_of(n, m, 3);
  auto C = operand_of(n, m, 4), H = tensor<T, 2>(m, m), R = tensor<T, 2>(m, m);
  backend.gemm(T{1}, A.view(), B.view(), T{1}, C.view());
  keep(C.view().data, n * m);
  H.fill(T{0});
  for (index_t i = 0; i < m; ++i) H(i, i) = T{50};
  backend.gram_update(T{1}, X.view(), H.view());
  keep(H.view().data, m * m);
  REQUIRE(backend.inverse_factor(as_const(H.view()), R.view()));
  keep(R.view().data, m * m);
  auto right = operand_of(m, 37, 5);
  REQUIRE(backend.solve_positive_definite(H.view(), right.view()));
  keep(right.view().data, m * 37);
  tensor<T, 2> sums(2, n + m);
  sums.fill(T{0});
  backend.row_dots(A.view(), A.view(), slice(row(sums.view(), 0), 0, 0, n));
  backend.column_square_sums(X.view(), slice(row(sums.view(), 1), 0, 0, m));
  keep(sums.view().data, 2 * (n + m));
  tensor<std::int32_t, 2> order(n, 9);
  backend.top_k(X.view(), order.view());
  keep(order.view().data, n * 9);
  double const product = backend.dot(row(A.view(), 0), row(A.view(), 1));
  keep(&product, 1);
  return bytes;
}

template <class T>
void check_thread_counts() {
  auto const serial = all_results<T>(eigen_backend{});
  for (index_t threads : {1, 2, 3, 7}) {
    thread_pool pool(threads);
    CAPTURE(threads);
    CHECK(all_results<T>(eigen_backend(pool)) == serial);
  }
}

}  // namespace

using eigen_serial = backend_tests::host_harness<eigen_backend>;
SLIMTRIM_BACKEND_SUITE(eigen_serial)
SLIMTRIM_BACKEND_SUITE(eigen_on_two_threads)

static_assert(std::is_base_of_v<eigen_backend, default_backend<space::host>>);
static_assert(host_backend<default_backend<space::host>>);

TEST_CASE("eigen: bytes do not depend on the number of threads") {
  check_thread_counts<float>();
  check_thread_counts<double>();
}

TEST_CASE("eigen: dot does not depend on where its operands begin") {
  for (index_t n : {7, 64, 1001}) {
    std::vector<float> storage(static_cast<std::size_t>(n) + 16), found;
    for (index_t offset = 0; offset < 16; ++offset) {
      for (index_t i = 0; i < n; ++i)
        storage[static_cast<std::size_t>(offset + i)] = static_cast<float>(normal_at(2, 0, static_cast<std::uint64_t>(i)));
      vector_view<float const> const x(storage.data() + offset, n);
      found.push_back(static_cast<float>(eigen_backend{}.dot(x, x)));
    }
    CHECK(found == std::vector<float>(16, found.front()));
  }
}

TEST_CASE("eigen: gemm does not depend on where a tile of it stands") {
  // The same 100 rows computed alone and as part of 300 rows, whose tiles begin elsewhere.
  index_t const n = 300, k = 700, m = 90;
  auto A = backend_tests::operand<float>::random(n, k, backend_tests::layout::rows, 1);
  auto B = backend_tests::operand<float>::random(k, m, backend_tests::layout::rows, 2);
  tensor<float, 2> whole(n, m), again(n, m);
  eigen_backend{}.gemm(1.0F, as_const(A.host()), as_const(B.host()), 0.0F, whole.view());
  thread_pool pool(3);
  eigen_backend(pool).gemm(1.0F, as_const(A.host()), as_const(B.host()), 0.0F, again.view());
  CHECK(std::memcmp(whole.view().data, again.view().data, sizeof(float) * static_cast<std::size_t>(n * m)) == 0);
}

}  // namespace backend_eigen_test
