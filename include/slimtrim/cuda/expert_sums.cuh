// Sums of doubles by expert that stay on the device from call to call: memory, how a block adds to it, and the way back
// to the host. What the accumulators of routing and of outputs share.
#pragma once

#include <slimtrim/cuda/context.cuh>

#include <cstddef>
#include <initializer_list>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {
namespace detail {

inline constexpr int statistics_threads = 256;

// Where a block of one expert leaves its sums: `fields` arrays of [experts], then `tables` of [experts, experts].
struct expert_sums {
  double* at;
  index_t experts;
  __device__ void add(int field, index_t j, double sum) const { at[field * experts + j] += sum; }
  __device__ void add_pair(int fields, int table, index_t j, index_t i, double sum) const {
    at[(fields + table * experts) * experts + j * experts + i] += sum;
  }
};

// The memory behind them. `where` names the owner in messages and outlives this.
class expert_sum_memory {
 public:
  expert_sum_memory(context& on, index_t experts, index_t fields, index_t tables, char const* where)
      : where_(where), experts_(experts), memory_(experts * (fields + tables * experts)) {
    expects(experts >= 1 && experts <= 8192, where, "experts: expected 1 .. 8192");
    clear(on);
  }
  void clear(context& on) {
    check(cudaMemsetAsync(memory_.data(), 0, sizeof(double) * static_cast<std::size_t>(memory_.size()), on.stream()),
          where_);
  }
  [[nodiscard]] index_t experts() const { return experts_; }
  [[nodiscard]] expert_sums view() const { return {memory_.data(), experts_}; }
  // Copies fields, then tables, in their order. Waits for the device.
  void download(context& on, std::initializer_list<std::vector<double>*> fields,
                std::initializer_list<std::vector<double>*> tables) const {
    std::vector<double> all(static_cast<std::size_t>(memory_.size()));
    copy_to_host(on.stream(), memory_.data(), memory_.size(), all.data());
    auto from = all.cbegin();
    auto const take = [&](std::vector<double>& to, index_t count) {
      to.assign(from, from + count);
      from += count;
    };
    for (auto* const field : fields) take(*field, experts_);
    for (auto* const table : tables) take(*table, experts_ * experts_);
  }

 private:
  char const* where_;
  index_t experts_;
  device_buffer<double> memory_;
};

}  // namespace detail
}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
