#include <slimtrim/model/read_ahead.hpp>

#include "support.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace model_read_ahead_test {

using namespace slimtrim;

namespace {

// Notes what is read, and holds the reader at the first module until it is let go.
class noting_source final : public weight_source {
 public:
  [[nodiscard]] bool has(module_id) const override { return true; }
  [[nodiscard]] weight matrix(module_id) const override { return {}; }
  [[nodiscard]] std::vector<float> vector(module_id) const override { return {}; }
  void prefetch(module_id id) const override {
    std::unique_lock lock(mutex_);
    read_.push_back(id);
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
    if (id.layer == bad_layer) throw std::runtime_error("no such module");
  }

  void open() {
    std::lock_guard const lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  // Waits, at most ten seconds, until `count` modules were read or begun.
  [[nodiscard]] std::vector<module_id> read(std::size_t count) const {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return read_.size() >= count; });
    return read_;
  }
  static constexpr index_t bad_layer = 77;

 private:
  mutable std::mutex mutex_{};
  mutable std::condition_variable changed_{};
  mutable std::vector<module_id> read_{};
  bool open_ = false;
};

std::vector<module_id> numbered(std::initializer_list<index_t> layers) {
  std::vector<module_id> ids;
  for (index_t const layer : layers) ids.push_back({module_role::query, layer, 0});
  return ids;
}

}  // namespace

TEST_CASE("modules are read in order, and only as far as was said") {
  noting_source source;
  source.open();
  read_ahead ahead(source);
  ahead.begin(numbered({3, 1, 2, 5}), 2);
  CHECK(source.read(2) == numbered({3, 1}));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(source.read(2).size() == 2);
  ahead.go_on(3);
  CHECK(source.read(3) == numbered({3, 1, 2}));
  ahead.go_on(100);
  CHECK(source.read(4) == numbered({3, 1, 2, 5}));
}

TEST_CASE("what was not begun is forgotten for what comes next") {
  noting_source source;
  read_ahead ahead(source);
  ahead.begin(numbered({1, 2, 3}));
  REQUIRE(source.read(1).size() == 1);  // held in the first
  ahead.begin(numbered({8, 9}));
  source.open();
  CHECK(source.read(3) == numbered({1, 8, 9}));
}

TEST_CASE("the end does not wait for what was not begun") {
  noting_source source;
  std::thread later;
  {
    read_ahead ahead(source);
    ahead.begin(numbered({1, 2, 3}));
    REQUIRE(source.read(1).size() == 1);
    later = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      source.open();
    });
  }
  later.join();
  CHECK(source.read(1).size() == 1);
}

TEST_CASE("an error of the source is left to whoever asks for the weight") {
  noting_source source;
  source.open();
  read_ahead ahead(source);
  ahead.begin(numbered({noting_source::bad_layer, 4}));
  CHECK(source.read(2) == numbered({noting_source::bad_layer, 4}));
}

TEST_CASE("a layer is all its modules, and behind the last there is nothing") {
  model_config const& config = slimtrim_tests::tiny_mixtral().config;
  noting_source source;
  source.open();
  std::vector<module_id> expected;
  for_each_layer_module(config, 1, [&](module_id id) { expected.push_back(id); });
  read_ahead ahead(source);
  ahead.begin_layer(config, 1);
  CHECK(source.read(expected.size()) == expected);
  ahead.begin_layer(config, config.layer_count());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(source.read(expected.size()).size() == expected.size());
}

}  // namespace model_read_ahead_test
