#include <slimtrim/core/error.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace core_thread_pool_test {

using namespace slimtrim;

namespace {

std::vector<int> visits(executor& pool, index_t count) {
  std::vector<int> counts(static_cast<std::size_t>(count), 0);
  pool.run(count, [&](index_t i) { ++counts[static_cast<std::size_t>(i)]; });
  return counts;
}

}  // namespace

TEST_CASE("every piece runs exactly once for any number of threads and pieces") {
  for (index_t threads : {1, 2, 3, 7}) {
    thread_pool pool(threads);
    CHECK(pool.concurrency() == threads);
    for (index_t count : {0, 1, 2, 5, 64, 1000})
      CHECK(visits(pool, count) == std::vector<int>(static_cast<std::size_t>(count), 1));
  }
}

TEST_CASE("a pool is reused for many short jobs without losing one") {
  thread_pool pool(3);
  std::atomic<index_t> total{0};
  for (int job = 0; job < 2000; ++job) pool.run(3, [&](index_t i) { total += i + 1; });
  CHECK(total == 2000 * 6);
}

TEST_CASE("what pieces wrote is visible after run without further synchronisation") {
  thread_pool pool(2);
  std::vector<index_t> out(512);
  for (index_t round = 1; round <= 50; ++round) {
    pool.run(512, [&](index_t i) { out[static_cast<std::size_t>(i)] = i * round; });
    for (index_t i = 0; i < 512; ++i) REQUIRE(out[static_cast<std::size_t>(i)] == i * round);
  }
}

TEST_CASE("the exception of a piece is rethrown by run and the pool stays usable") {
  for (index_t threads : {1, 2, 3}) {
    thread_pool pool(threads);
    for (int round = 0; round < 20; ++round) {
      std::string caught;
      try {
        pool.run(100, [](index_t i) {
          if (i == 37) throw std::runtime_error("piece 37");
        });
      } catch (std::runtime_error const& failure) {
        caught = failure.what();
      }
      CHECK(caught == "piece 37");
      CHECK(visits(pool, 10) == std::vector<int>(10, 1));
    }
  }
}

TEST_CASE("a run inside a piece stays on that thread and does not deadlock") {
  thread_pool pool(2), other(2);
  std::atomic<int> inner{0};
  std::atomic<int> strays{0};
  pool.run(8, [&](index_t) {
    auto const self = std::this_thread::get_id();
    auto const count = [&](index_t) {
      ++inner;
      if (std::this_thread::get_id() != self) ++strays;
    };
    pool.run(5, count);
    other.run(5, count);
  });
  CHECK(inner == 80);
  CHECK(strays == 0);
}

TEST_CASE("an exception of a nested run passes through both") {
  thread_pool pool(2);
  CHECK_THROWS_AS(pool.run(4, [&](index_t) { pool.run(4, [](index_t) { throw std::logic_error("inner"); }); }),
                  std::logic_error);
  CHECK(visits(pool, 6) == std::vector<int>(6, 1));
}

TEST_CASE("several threads may give jobs to one pool") {
  thread_pool pool(2);
  std::atomic<index_t> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&] {
      for (int job = 0; job < 100; ++job) pool.run(4, [&](index_t) { ++total; });
    });
  for (auto& caller : callers) caller.join();
  CHECK(total == 3 * 100 * 4);
}

TEST_CASE("threads that went to sleep between jobs wake up, on either side") {
  thread_pool pool(3);
  for (int round = 0; round < 6; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // longer than any thread spins
    CHECK(visits(pool, 9) == std::vector<int>(9, 1));
    // The caller is done long before the workers and sleeps until they are.
    auto const caller = std::this_thread::get_id();
    std::atomic<int> ran{0};
    pool.run(9, [&](index_t) {
      if (std::this_thread::get_id() != caller) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ++ran;
    });
    CHECK(ran == 9);
  }
}

TEST_CASE("pieces of a thread that is held up are taken by others") {
  thread_pool pool(2);
  std::atomic<int> others{0};
  pool.run(8, [&](index_t i) {
    if (i != 0) {
      ++others;
      return;
    }
    while (others < 7) std::this_thread::yield();
  });
  CHECK(others == 7);
}

TEST_CASE("a pool of no threads is refused") {
  CHECK_THROWS_AS(thread_pool(0), error);
  CHECK_THROWS_AS(thread_pool(-3), error);
}

TEST_CASE("an idle pool is destroyed at once") {
  for (int i = 0; i < 50; ++i) thread_pool pool(3);
  CHECK(true);
}

}  // namespace core_thread_pool_test
