// One token behind 4000 of a Mixtral-shaped cache: 32 heads, 8 of keys and values, 128 columns each; 16.4 MB of cache.
#include <slimtrim/cuda/attention_few.cuh>
#include <slimtrim/cuda/backend.cuh>

#include <vector>

int main() {
  using namespace slimtrim;
  cuda_backend backend(nullptr);
  auto& on = backend.on();
  index_t const heads = 32, sharing = 8, dim = 128, capacity = 4096, width = sharing * dim, queries = heads * dim;
  cuda::head_layout const layout{heads, sharing, dim, queries, queries + width};
  auto const zeros = [](index_t count) {
    cuda::device_buffer<bfloat16> made(count);
    cuda::check(cudaMemsetAsync(made.data(), 0, sizeof(bfloat16) * static_cast<std::size_t>(count), nullptr), "zeros");
    return made;
  };
  auto const keys = zeros(capacity * width), values = zeros(capacity * width), rows = zeros(2 * (queries + 2 * width)), Z = zeros(queries);
  auto const frequencies = cuda::rotary_frequencies(dim, 10000, 1);
  cuda::device_buffer<float> on_device(dim / 2);
  cuda::copy_to_device(on.stream(), frequencies.data(), dim / 2, on_device.data());
  std::int32_t const before = 4000;
  cuda::device_buffer<std::int32_t> length(1);
  cuda::copy_to_device(on.stream(), &before, 1, length.data());
  cuda::attention_workspace const work(on, 1, layout, capacity);
  cuda::attention_few<bfloat16>(on, layout, device_matrix<float const>(reinterpret_cast<float const*>(rows.data()), 1, queries + 2 * width),
                                on_device.data(), {keys.data(), values.data(), capacity, width}, length.data(), work, Z.matrix(1, queries));
  backend.synchronise();
}
