#include <slimtrim/core/executor.hpp>
#include <doctest/doctest.h>

#include <stdexcept>
#include <vector>

namespace core_executor_test {

using namespace slimtrim;

namespace {

// An engine's own pool: runs backwards, to show that order is free.
class backwards final : public executor {
 public:
  void run(index_t count, piece_ref piece) override {
    ++jobs;
    for (index_t i = count; i > 0; --i) piece(i - 1);
  }
  [[nodiscard]] index_t concurrency() const override { return 3; }
  int jobs = 0;
};

struct counting_functor {
  std::vector<int>& counts;
  void operator()(index_t i) const { ++counts[static_cast<std::size_t>(i)]; }
};

}  // namespace

TEST_CASE("serial_executor runs every piece once and in order") {
  std::vector<index_t> order;
  serial_executor serial;
  serial.run(4, [&](index_t i) { order.push_back(i); });
  CHECK(order == std::vector<index_t>{0, 1, 2, 3});
  CHECK(serial.concurrency() == 1);
}

TEST_CASE("parallel_for uses the executor given, and none for one piece or without one") {
  std::vector<int> counts(5, 0);
  counting_functor const piece{counts};
  backwards own;
  parallel_for(&own, 5, piece);
  CHECK(own.jobs == 1);
  parallel_for(nullptr, 5, piece);
  parallel_for(&own, 1, piece);
  parallel_for(&own, 0, piece);
  CHECK(own.jobs == 1);
  CHECK(counts == std::vector<int>{3, 2, 2, 2, 2});
}

TEST_CASE("an exception of a piece leaves parallel_for") {
  CHECK_THROWS_AS(parallel_for(nullptr, 3, [](index_t) { throw std::logic_error("piece"); }), std::logic_error);
}

}  // namespace core_executor_test
