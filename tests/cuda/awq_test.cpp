// AWQ on the device against slimtrim's on the host: the same scales, and errors that are as small.
#include "cuda/support.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/awq.cuh>
#include <doctest/doctest.h>

#include "slim/support.hpp"

#include <limits>
#include <vector>

namespace cuda_awq_test {

using namespace slimtrim;
using slimtrim_test::gram_of;
using slimtrim_test::output_error;
using slimtrim_test::random_input;
using slimtrim_test::random_weight;

namespace {

device_matrix<float const> send(cuda_tests::device_memory& device, matrix<float> const& m) {
  return device_matrix<float const>(device.keep<float>(m.view().data, m.view().size()), m.extent(0), m.extent(1));
}

struct two_members {
  std::vector<matrix<float>> weights, hessians;
  explicit two_members(index_t c) {
    for (std::uint64_t m = 0; m < 2; ++m) {
      weights.push_back(random_weight(12 + 5 * static_cast<index_t>(m), c, 31 + m));
      hessians.push_back(gram_of(random_input(40, c, 61 + m)));
    }
  }
  std::vector<slimtrim::awq_member<float>> on_host() const {
    return {{as_const(weights[0].view()), as_const(hessians[0].view())},
            {as_const(weights[1].view()), as_const(hessians[1].view())}};
  }
  std::vector<cuda::awq_member<float>> on_device(cuda_tests::device_memory& device) const {
    return {{send(device, weights[0]), send(device, hessians[0])},
            {send(device, weights[1]), send(device, hessians[1])}};
  }
};

}  // namespace

TEST_CASE("cuda awq: the host's channel scales, with and without ties, zero points and powers of two") {
  two_members const both(96);
  std::vector<index_t> tied(96);
  for (index_t j = 0; j < 96; ++j) tied[static_cast<std::size_t>(j)] = j / 2 * 2;
  for (auto const& ties : {std::vector<index_t>{}, tied})
    for (awq_options const& options :
         {awq_options{.groups = {group_kind::group, 32}},
          awq_options{.grid = {4, true}, .groups = {group_kind::group, 40}, .ratios = 7, .power_of_two = true}}) {
      cuda_tests::device_memory device;
      auto const host = search_awq_scales(reference_backend{}, both.on_host(), options, ties);
      auto const found = cuda::search_awq_scales(device.backend().on(), both.on_device(device), options, ties);
      // Errors are float sums of n c² terms; scales come from the same doubles, but for sums over panels.
      CHECK(found.error_plain == doctest::Approx(host.error_plain).epsilon(1e-4));
      CHECK(found.error == doctest::Approx(host.error).epsilon(1e-4));
      CHECK(found.ratio == host.ratio);
      REQUIRE(found.scales.size() == host.scales.size());
      for (std::size_t j = 0; j < found.scales.size(); ++j)
        CHECK(found.scales[j] == doctest::Approx(host.scales[j]).epsilon(1e-5));
    }
}

TEST_CASE("cuda awq: clipping is as good as the host's and never worse than not clipping") {
  for (bool symmetric : {true, false})
    for (index_t group : {32, 80, 128}) {
      cuda_tests::device_memory device;
      index_t const n = 70, c = 160;
      auto const W = random_weight(n, c, 3), X = random_input(2 * c, c, 4), H = gram_of(X);
      std::vector<float> scales(static_cast<std::size_t>(c));
      for (std::size_t j = 0; j < scales.size(); ++j) scales[j] = 0.5F + static_cast<float>(j % 5);
      awq_options options{.grid = {4, symmetric}, .groups = {group_kind::group, group}};
      index_t host_kept = 0, kept = 0;
      auto const host = awq(reference_backend{}, W, as_const(H.view()), scales, options, {}, &host_kept);
      auto const found =
          cuda::awq<float>(device.backend().on(), send(device, W), send(device, H), scales, options, {}, &kept);
      auto const error = [&](quantized_matrix const& q) {
        matrix<float> back(n, c);
        for (index_t i = 0; i < n; ++i)
          for (index_t j = 0; j < c; ++j) back(i, j) = q.view()(i, j) / scales[static_cast<std::size_t>(j)];
        return output_error(W, back, X);
      };
      CHECK(error(found) == doctest::Approx(error(host)).epsilon(1e-3));
      CHECK(std::abs(static_cast<double>(kept - host_kept)) <= 2);
      options.clip = false;
      auto const plain = cuda::awq<float>(device.backend().on(), send(device, W), send(device, H), scales, options);
      auto const host_plain = awq(reference_backend{}, W, as_const(H.view()), scales, options);
      CHECK(error(found) <= error(plain));
      // Without a search everything is the same functions of the same numbers: the same bits.
      for (index_t i = 0; i < n; ++i)
        for (index_t w = 0; w < plain.words.extent(1); ++w) REQUIRE(plain.words(i, w) == host_plain.words(i, w));
    }
}

TEST_CASE("cuda awq: edges and refusals") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const H = gram_of(random_input(40, 64, 4));
  CHECK(cuda::search_awq_scales<float>(on, {}).scales.empty());
  auto const none = cuda::awq<float>(on, send(device, matrix<float>(0, 64)), send(device, H), {},
                                     {.groups = {group_kind::group, 32}});
  CHECK(none.rows == 0);
  auto bad = random_weight(4, 64, 3);
  bad(2, 9) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(
      (void)cuda::awq<float>(on, send(device, bad), send(device, H), {}, {.groups = {group_kind::group, 32}}),
      "cuda::awq: W[2, 9]: expected a finite value", input_error);
  auto const good = send(device, random_weight(4, 64, 3));
  CHECK_THROWS_AS((void)cuda::awq<float>(on, good, send(device, H), std::vector<float>(63, 1.0F)), error);
  CHECK_THROWS_AS((void)cuda::awq<float>(on, good, send(device, H), std::vector<float>(64, -1.0F)), error);
  // A member whose Hessian overflowed says nothing, so there is nothing to search for.
  auto broken = H.clone();
  broken(1, 1) = std::numeric_limits<float>::infinity();
  auto const scales =
      cuda::search_awq_scales<float>(on, {{good, send(device, broken)}}, {.groups = {group_kind::group, 32}});
  CHECK(scales.scales == std::vector<float>(64, 1.0F));
}

}  // namespace cuda_awq_test
