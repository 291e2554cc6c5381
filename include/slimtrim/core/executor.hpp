// Who runs the independent pieces of a host computation: the caller's choice, never a global.
//
// Every algorithm cuts its work into pieces whose shape does not depend on the number of threads and whose results
// go to disjoint outputs, so any executor gives the same bits.
#pragma once

#include <slimtrim/core/index.hpp>

#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// A reference to a callable `void(index_t)` that outlives the call; costs one indirect call per piece.
class piece_ref {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, piece_ref>)
  // NOLINTNEXTLINE(google-explicit-constructor): a lambda passes as an argument.
  piece_ref(F&& f)
      : object_(const_cast<void*>(static_cast<void const*>(__builtin_addressof(f)))),
        call_([](void* object, index_t i) { (*static_cast<std::remove_reference_t<F>*>(object))(i); }) {}
  void operator()(index_t i) const { call_(object_, i); }

 private:
  void* object_;
  void (*call_)(void*, index_t);
};

/// Runs `piece(0) .. piece(count - 1)`, each exactly once, in any order and on any thread, and returns when all are
/// done. The first exception thrown by a piece is rethrown by `run`. Engines derive from it to lend their own pool.
class executor {
 public:
  executor() = default;
  executor(executor const&) = delete;
  executor& operator=(executor const&) = delete;
  virtual ~executor() = default;
  virtual void run(index_t count, piece_ref piece) = 0;
  /// How many pieces may run at the same time; at least 1.
  [[nodiscard]] virtual index_t concurrency() const = 0;
};

/// Runs the pieces one after another on the calling thread.
class serial_executor final : public executor {
 public:
  void run(index_t count, piece_ref piece) override {
    for (index_t i = 0; i < count; ++i) piece(i);
  }
  [[nodiscard]] index_t concurrency() const override { return 1; }
};

/// Runs the pieces on `run_on`, or serially when there is none.
inline void parallel_for(executor* run_on, index_t count, piece_ref piece) {
  if (run_on != nullptr && count > 1) {
    run_on->run(count, piece);
  } else {
    for (index_t i = 0; i < count; ++i) piece(i);
  }
}

}  // namespace v0
}  // namespace slimtrim
