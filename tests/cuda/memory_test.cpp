// Who owns device memory, what it may be seen as, and copies there and back.
#include "cuda/support.hpp"

#include <slimtrim/cuda/memory.cuh>
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace cuda_memory_test {

using namespace slimtrim;

TEST_CASE("cuda memory: a buffer is aligned, and holds what was copied there") {
  cuda_tests::device_memory device;
  cudaStream_t const stream = device.backend().stream();
  for (index_t size : {1, 17, 1000}) {
    cuda::device_buffer<std::uint16_t> const memory(size);
    CHECK(memory.size() == size);
    CHECK(reinterpret_cast<std::uintptr_t>(memory.data()) % 256 == 0);
    std::vector<std::uint16_t> to(static_cast<std::size_t>(size) + 1, 7), from;
    for (index_t i = 0; i < size; ++i) from.push_back(static_cast<std::uint16_t>(3 * i + 1));
    cuda::copy_to_device(stream, from.data(), size, memory.data());
    cuda::copy_to_host(stream, memory.data(), size, to.data());
    from.push_back(7);  // nothing behind it is written
    CHECK(to == from);
    cuda::copy_to_device(stream, from.data(), 0, memory.data());
    cuda::copy_to_host(stream, static_cast<std::uint16_t const*>(nullptr), 0, to.data());
    CHECK(to == from);
  }
}

TEST_CASE("cuda memory: host pages are fixed while somebody holds them, and only once") {
  cuda_tests::device_memory device;
  std::vector<float> memory(100'000, 1.0F);
  auto const bytes = std::as_writable_bytes(std::span(memory));
  {
    cuda::fixed_pages const first(bytes);
    CHECK(first.fixed());
    cuda::fixed_pages const second(bytes);
    CHECK_FALSE(second.fixed());
    CHECK_FALSE(cuda::fixed_pages(std::span<std::byte>()).fixed());
    cuda::device_buffer<float> const there(100'000);
    memory.back() = 5.0F;
    cuda::copy_to_device(device.backend().stream(), memory.data(), 100'000, there.data());
    device.backend().synchronise();  // until here the memory may still be read
    memory.back() = 6.0F;
    cuda::copy_to_host(device.backend().stream(), there.data(), 100'000, memory.data());
    CHECK(memory.back() == 5.0F);
  }
  CHECK(cuda::fixed_pages(bytes).fixed());
}

TEST_CASE("cuda memory: what moves takes its memory along") {
  cuda::device_buffer<float> a(5);
  float* const first = a.data();
  cuda::device_buffer<float> b(std::move(a));
  CHECK(b.data() == first);
  CHECK(b.size() == 5);
  CHECK(a.data() == nullptr);  // NOLINT(bugprone-use-after-move): that it is empty is the point
  CHECK(a.size() == 0);
  cuda::device_buffer<float> c(3);
  c = std::move(b);
  CHECK(c.data() == first);
  CHECK(c.size() == 5);
  c = cuda::device_buffer<float>();
  CHECK(c.data() == nullptr);
  CHECK(cuda::device_buffer<float>(0).data() == nullptr);
  cuda_tests::device_memory device;
  auto one = device.backend().on().scratch_for<float>(9);
  float* const held = one.data();
  auto const other = std::move(one);
  CHECK(other.data() == held);
  CHECK(other.size() == 9);
  CHECK(one.data() == nullptr);  // NOLINT(bugprone-use-after-move)
  CHECK(one.size() == 0);
  CHECK(device.backend().on().scratch_for<float>(0).data() == nullptr);
}

TEST_CASE("cuda memory: views of a buffer, and none beyond it") {
  cuda::device_buffer<float> const memory(6);
  CHECK(memory.view().extent(0) == 6);
  auto const some = memory.matrix(2, 2);
  CHECK(some.data == memory.data());
  CHECK(some.contiguous());
  CHECK(some.extent(0) == 2);
  CHECK(memory.matrix(0, 100).size() == 0);
  CHECK_NOTHROW((void)memory.matrix(3, 2));
  CHECK_THROWS_WITH_AS((void)memory.matrix(7, 1), "device_buffer: a view larger than the buffer", error);
}

TEST_CASE("cuda memory: sizes that no memory has are refused") {
  index_t const most = PTRDIFF_MAX / 4;
  CHECK(cuda::detail::bytes_of<float>(most) == 4 * static_cast<std::size_t>(most));
  for (index_t size : {index_t{-1}, most + 1, index_t{INT64_MAX}}) {
    CHECK_THROWS_WITH_AS((void)cuda::device_buffer<float>{size}, "cuda: size does not fit in memory", error);
    cuda_tests::device_memory device;
    CHECK_THROWS_WITH_AS((void)device.backend().on().scratch_for<float>(size), "cuda: size does not fit in memory",
                         error);
  }
  CHECK_THROWS_WITH_AS(cuda::detail::check_allocation(cudaErrorMemoryAllocation, 12),
                       "cuda: device memory exhausted: 12 bytes could not be had", system_failure);
  CHECK_NOTHROW(cuda::detail::check_allocation(cudaSuccess, 12));
}

}  // namespace cuda_memory_test
