// What a context knows of its device, and how kernels' reports come to the caller.
#include "cuda/support.hpp"

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace cuda_context_test {

using namespace slimtrim;

namespace {

// Every thread reports its own place among `places`.
__global__ void report_places(cuda::device_report* report, unsigned long long const* places, int count) {
  int const i = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
  if (i < count) cuda::raise_to(&report->not_finite, places[i] + 1);
}

}  // namespace

TEST_CASE("cuda context: the last place that kernels report is told once, as one that is not finite") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  CHECK_NOTHROW(on.synchronise());
  std::vector<unsigned long long> places;
  for (unsigned long long i = 0; i < 70; ++i) places.push_back((i * 31 + 5) % 70);
  auto const report = [&](int count) {
    auto const* const from = device.keep<unsigned long long>(places.data(), 70);
    cuda::launch(on.stream(), {dim3(3), 32, 0}, report_places, on.report(), from, count);
  };
  report(0);
  CHECK_NOTHROW(on.synchronise());
  report(70);
  CHECK_THROWS_WITH_AS(on.synchronise(), "cuda: element 69 of an operand: expected a finite number", numeric_error);
  CHECK_NOTHROW(on.synchronise());
  report(1);  // what was told is forgotten: a lower place shows
  CHECK_THROWS_WITH_AS(on.synchronise(), "cuda: element 5 of an operand: expected a finite number", numeric_error);
  places[0] = 0;
  report(1);
  CHECK_THROWS_WITH_AS(on.synchronise(), "cuda: element 0 of an operand: expected a finite number", numeric_error);
}

TEST_CASE("cuda context: two of them report apart") {
  cuda_tests::device_memory device;
  cuda::context one(device.backend().stream()), other(device.backend().stream());
  unsigned long long const place = 3;
  cuda::launch(one.stream(), {dim3(1), 32, 0}, report_places, one.report(), device.keep<unsigned long long>(&place, 1),
               1);
  CHECK_NOTHROW(other.synchronise());
  CHECK_THROWS_AS(one.synchronise(), numeric_error);
}

TEST_CASE("cuda context: the device, and handles that are made once") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  CHECK(on.stream() == device.backend().stream());
  CHECK(on.multiprocessors() > 0);
  CHECK(on.compute_capability() >= 80);
  auto const blas = on.blas();
  CHECK(on.blas() == blas);
  auto const solver = on.solver();
  CHECK(on.solver() == solver);
}

TEST_CASE("cuda context: a library's refusal is the system's fault, in the name of who asked") {
  auto const begins_with_asker = [](auto const& ask) {
    try {
      ask();
    } catch (system_failure const& failure) {
      return std::string(failure.what()).rfind("asker: ", 0) == 0;
    }
    return false;
  };
  CHECK(begins_with_asker([] { cuda::check(static_cast<cublasStatus_t>(1), "asker"); }));
  CHECK(begins_with_asker([] { cuda::check(static_cast<cusolverStatus_t>(1), "asker"); }));
  CHECK(begins_with_asker([] { cuda::check(cudaErrorMemoryAllocation, "asker"); }));
  CHECK_NOTHROW(cuda::check(CUBLAS_STATUS_SUCCESS, "asker"));
  CHECK_NOTHROW(cuda::check(CUSOLVER_STATUS_SUCCESS, "asker"));
  CHECK_NOTHROW(cuda::check(cudaSuccess, "asker"));
}

}  // namespace cuda_context_test
