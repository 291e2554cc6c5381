// A small pool of threads behind `executor`.
//
// Every thread starts with its own stretch of the pieces, so that what it reads follows on, and helps with those of
// others when it is done. Between jobs they spin for a short while, because decoding hands over a job every few
// microseconds and waking a sleeping thread takes longer than most of its jobs; then they sleep. How long a thread
// spins follows what it met: twice as long after a job that came in time, half as long after one that did not, and
// beyond the first microseconds every look is followed by a yield, so a contended machine is not slowed by waiting. A
// `run` from inside a piece is executed serially: nesting never deadlocks.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
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
  explicit thread_pool(index_t threads) : stretches_(static_cast<std::size_t>(checked(threads))) {
    try {
      for (index_t i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(static_cast<std::size_t>(i)); });
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
    job current{piece};
    auto const threads = static_cast<index_t>(stretches_.size());
    for (index_t i = 0; i < threads; ++i) {
      stretch& own = stretches_[static_cast<std::size_t>(i)];
      own.next.store(i * count / threads, std::memory_order_relaxed);
      own.end = (i + 1) * count / threads;
    }
    // All of these are sequentially consistent: whoever goes to sleep or leaves says so first and looks again, and
    // whoever changes what is looked at changes it first and then asks for sleepers.
    open_.store(&current);
    generation_.fetch_add(1);
    if (sleepers_.load() > 0) wake(wake_);
    take_pieces(current, 0);
    // No worker may still hold a pointer to `current` when it goes out of scope.
    open_.store(nullptr);
    if (!caller_patience_.spin([&] { return busy_.load() == 0; })) {
      std::unique_lock lock(mutex_);
      caller_sleeps_.store(true);
      idle_.wait(lock, [&] { return busy_.load() == 0; });
      caller_sleeps_.store(false);
    }
    if (current.failure) std::rethrow_exception(current.failure);
  }

 private:
  struct job {
    piece_ref piece;
    std::mutex failure_mutex{};
    std::exception_ptr failure{};
    explicit job(piece_ref p) : piece(p) {}
  };

  /// Pieces that one thread takes first. A cache line each.
  struct alignas(64) stretch {
    std::atomic<index_t> next{0};
    index_t end = 0;
  };

  [[nodiscard]] static index_t checked(index_t threads) {
    expects(threads >= 1, "thread_pool", "at least one thread is needed");
    return threads;
  }

  /// Spins until a condition holds, for a time that grows when that pays and shrinks when it does not.
  class patience {
   public:
    /// Whether `done()` came true within the time.
    template <class Done>
    [[nodiscard]] bool spin(Done&& done) {
      using clock = std::chrono::steady_clock;
      for (int look = 0; look < looks_before_clock; ++look) {
        if (done()) return true;
        pause();
      }
      auto const begin = clock::now();
      for (;;) {
        for (int look = 0; look < looks_a_yield; ++look) {
          if (done()) {
            time_ = std::min(2 * time_, longest);
            return true;
          }
          pause();
        }
        if (clock::now() - begin >= time_) {
          time_ = std::max(time_ / 2, shortest);
          return false;
        }
        std::this_thread::yield();
      }
    }

   private:
    static constexpr int looks_before_clock = 200, looks_a_yield = 20;
    static constexpr std::chrono::nanoseconds shortest{2000}, longest{200000};

    static void pause() {
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      asm volatile("yield");
#endif
    }

    std::chrono::nanoseconds time_{50000};
  };

  // The empty critical section orders this after the sleeper's last look.
  void wake(std::condition_variable& sleepers) {
    { std::lock_guard const lock(mutex_); }
    sleepers.notify_all();
  }

  void stop() {
    stopping_.store(true);
    generation_.fetch_add(1);
    wake(wake_);
    for (auto& worker : workers_) worker.join();
  }

  void take_pieces(job& current, std::size_t first) {
    inside_ = true;
    for (std::size_t i = 0; i < stretches_.size(); ++i) {
      stretch& from = stretches_[(first + i) % stretches_.size()];
      for (;;) {
        index_t const piece = from.next.fetch_add(1, std::memory_order_relaxed);
        if (piece >= from.end) break;
        try {
          current.piece(piece);
        } catch (...) {
          std::lock_guard const lock(current.failure_mutex);
          if (!current.failure) current.failure = std::current_exception();
          for (stretch& each : stretches_) each.next.store(each.end, std::memory_order_relaxed);
        }
      }
    }
    inside_ = false;
  }

  void work(std::size_t self) {
    patience waiting;
    std::uint64_t seen = 0;
    auto const something_new = [&] { return generation_.load() != seen; };
    for (;;) {
      if (!waiting.spin(something_new)) {
        std::unique_lock lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, something_new);
        sleepers_.fetch_sub(1);
      }
      seen = generation_.load();
      if (stopping_.load()) return;
      busy_.fetch_add(1);
      // None when the others were done before this one came.
      if (job* const current = open_.load()) take_pieces(*current, self);
      if (busy_.fetch_sub(1) == 1 && caller_sleeps_.load()) wake(idle_);
    }
  }

  // Whether this thread is executing a piece; nested `run` calls then stay on it.
  static inline thread_local bool inside_ = false;

  std::vector<stretch> stretches_;
  std::vector<std::thread> workers_;
  std::mutex job_mutex_;
  patience caller_patience_;  // of whoever holds job_mutex_
  std::mutex mutex_;          // of the two conditions
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<job*> open_{nullptr};
  std::atomic<index_t> busy_{0};
  std::atomic<index_t> sleepers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stopping_{false};
};

}  // namespace v0
}  // namespace slimtrim
