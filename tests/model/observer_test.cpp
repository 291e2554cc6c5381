#include <slimtrim/model/observer.hpp>

#include <doctest/doctest.h>

#include <type_traits>

namespace model_observer_test {

using namespace slimtrim;

namespace {

struct one_hook {
  int calls = 0;
  index_t layer = -1;
  void block_output(index_t at, matrix_view<float const>) {
    ++calls;
    layer = at;
  }
};

template <class Observer>
void run(Observer&& observer) {
  matrix_view<float const> const nothing;
  SLIMTRIM_NOTIFY(observer, block_input, index_t{4}, nothing);
  SLIMTRIM_NOTIFY(observer, block_output, index_t{4}, nothing);
}

}  // namespace

TEST_CASE("only the hooks that an observer has are called") {
  one_hook seen;
  run(seen);
  CHECK(seen.calls == 1);
  CHECK(seen.layer == 4);
  run(no_observer{});
  static_assert(std::is_empty_v<no_observer>);
}

}  // namespace model_observer_test
