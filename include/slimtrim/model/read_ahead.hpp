// Reading from disk beside the work: while one layer is worked on, the pages of the next are read.
//
// A mapped weight is read when it is touched, a few pages at a time, and who touches it waits. Asked for ahead, a disk answers
// many requests together.
#pragma once

#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/module.hpp>
#include <slimtrim/model/weight_source.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Has modules of `source` read on a thread of its own. What is read and what is not changes times only, never results. `source`
/// outlives this.
class read_ahead {
 public:
  explicit read_ahead(weight_source const& source) : source_(source), thread_([this] { run(); }) {}
  read_ahead(read_ahead const&) = delete;
  read_ahead& operator=(read_ahead const&) = delete;
  /// Waits for at most one module's read.
  ~read_ahead() {
    {
      std::lock_guard const lock(mutex_);
      ended_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  /// Begins to read these modules in order, the first `some` of them, and forgets those of before that were not begun. Does not wait.
  void begin(std::vector<module_id> modules, std::size_t some = SIZE_MAX) {
    {
      std::lock_guard const lock(mutex_);
      modules_ = std::move(modules);
      next_ = 0;
      end_ = std::min(some, modules_.size());
    }
    changed_.notify_one();
  }
  /// Goes on to the first `some`.
  void go_on(std::size_t some) {
    {
      std::lock_guard const lock(mutex_);
      end_ = std::min(some, modules_.size());
    }
    changed_.notify_one();
  }
  /// The same for all modules of layer `layer`; none where the model has no such layer.
  void begin_layer(model_config const& config, index_t layer) {
    std::vector<module_id> modules;
    if (layer < config.layer_count())
      for_each_layer_module(config, layer, [&](module_id id) { modules.push_back(id); });
    begin(std::move(modules));
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return ended_ || next_ < end_; });
      if (ended_) return;
      module_id const id = modules_[next_++];
      lock.unlock();
      try {
        source_.prefetch(id);
      } catch (...) {  // what is wrong shows where the weight is asked for
      }
      lock.lock();
    }
  }

  weight_source const& source_;
  std::mutex mutex_{};
  std::condition_variable changed_{};
  std::vector<module_id> modules_{};
  std::size_t next_ = 0, end_ = 0;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace v0
}  // namespace slimtrim
