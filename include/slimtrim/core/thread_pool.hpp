// A small pool of threads behind `executor`.
//
// Workers take pieces from a shared counter and sleep between jobs after a short spin, so a contended machine is not
// slowed by waiting threads. A `run` from inside a piece is executed serially: nesting never deadlocks.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace slimtrim {
inline namespace v0 {

class thread_pool final : public executor {
 public:
  /// `threads` >= 1 counts the calling thread, which works too: `thread_pool(1)` starts no thread.
  /// Throws `error` for fewer than one thread and `system_failure` when the system grants none.
  explicit thread_pool(index_t threads) {
    expects(threads >= 1, "thread_pool", "at least one thread is needed");
    try {
      for (index_t i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (std::system_error const& refused) {
      stop();
      throw system_failure(std::string("thread_pool: cannot start a thread: ") + refused.what());
    }
  }
  ~thread_pool() override { stop(); }

  [[nodiscard]] index_t concurrency() const override { return static_cast<index_t>(workers_.size()) + 1; }

  void run(index_t count, piece_ref piece) override {
    if (count <= 0) return;
    if (workers_.empty() || count == 1 || inside_) {
      for (index_t i = 0; i < count; ++i) piece(i);
      return;
    }
    std::lock_guard const one_job_at_a_time(job_mutex_);
    job current{piece, count};
    {
      std::lock_guard const lock(mutex_);
      current_ = &current;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_pieces(current);
    {
      // No worker may still hold a pointer to `current` when it goes out of scope.
      std::unique_lock lock(mutex_);
      current_ = nullptr;
      idle_.wait(lock, [&] { return busy_ == 0; });
    }
    if (current.failure) std::rethrow_exception(current.failure);
  }

 private:
  struct job {
    piece_ref piece;
    index_t count;
    std::atomic<index_t> next{0};
    std::mutex failure_mutex{};
    std::exception_ptr failure{};
    job(piece_ref p, index_t n) : piece(p), count(n) {}
  };

  void stop() {
    {
      std::lock_guard const lock(mutex_);
      stopping_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  static void take_pieces(job& current) {
    inside_ = true;
    for (;;) {
      index_t const i = current.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= current.count) break;
      try {
        current.piece(i);
      } catch (...) {
        std::lock_guard const lock(current.failure_mutex);
        if (!current.failure) current.failure = std::current_exception();
        current.next.store(current.count, std::memory_order_relaxed);
      }
    }
    inside_ = false;
  }

  void work() {
    std::uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < 2000 && generation_.load(std::memory_order_acquire) == seen; ++spin) {
      }
      job* current = nullptr;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        if (stopping_) return;
        current = current_;
        if (current == nullptr) continue;
        ++busy_;
      }
      take_pieces(*current);
      {
        std::lock_guard const lock(mutex_);
        --busy_;
      }
      idle_.notify_one();
    }
  }

  // Whether this thread is executing a piece; nested `run` calls then stay on it.
  static inline thread_local bool inside_ = false;

  std::vector<std::thread> workers_;
  std::mutex job_mutex_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::atomic<std::uint64_t> generation_{0};
  job* current_ = nullptr;
  index_t busy_ = 0;
  bool stopping_ = false;
};

}  // namespace v0
}  // namespace slimtrim
