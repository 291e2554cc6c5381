// Hooks that an observer has become functions; the others stay empty.
#include <slimtrim/model/layer_hooks.hpp>
#include <doctest/doctest.h>

namespace model_layer_hooks_test {

using namespace slimtrim;

namespace {

struct all_hooks {
  int calls = 0;
  index_t layer = -1;
  void note(index_t l) {
    ++calls;
    layer = l;
  }
  void attention_input(index_t l, matrix_view<float const>) { note(l); }
  void attention_context(index_t l, matrix_view<float const>) { note(l); }
  void attention_residual(index_t l, matrix_view<float const>) { note(l); }
  void feed_forward_input(index_t l, matrix_view<float const>) { note(l); }
  void router_result(index_t l, routing_result const&) { note(l); }
  void expert_input(index_t l, expert_batch const&, matrix_view<float const>) { note(l); }
  void expert_hidden(index_t l, expert_batch const&, matrix_view<float const>) { note(l); }
  void expert_output(index_t l, expert_batch const&, matrix_view<float const>) { note(l); }
  void shared_hidden(index_t l, matrix_view<float const>) { note(l); }
  void dense_hidden(index_t l, matrix_view<float const>) { note(l); }
  void feed_forward_output(index_t l, matrix_view<float const>) { note(l); }
};
struct outer_hooks {
  void attention_residual(index_t, matrix_view<float const>) {}
  void feed_forward_output(index_t, matrix_view<float const>) {}
};

}  // namespace

TEST_CASE("layer_hooks: every hook of an observer is called with its layer") {
  all_hooks observer;
  layer_hooks const hooks = hooks_of(observer, 7);
  CHECK(hooks.inside());
  matrix_view<float const> const x;
  hooks.attention_input(x);
  hooks.attention_context(x);
  hooks.attention_residual(x);
  hooks.feed_forward_input(x);
  hooks.router_result({});
  hooks.expert_input({}, x);
  hooks.expert_hidden({}, x);
  hooks.expert_output({}, x);
  hooks.shared_hidden(x);
  hooks.dense_hidden(x);
  hooks.feed_forward_output(x);
  CHECK(observer.calls == 11);
  CHECK(observer.layer == 7);
}

TEST_CASE("layer_hooks: what an observer has not is empty") {
  no_observer none;
  CHECK_FALSE(hooks_of(none, 0).inside());
  CHECK_FALSE(hooks_of(none, 0).feed_forward_output);
  outer_hooks outer;
  layer_hooks const hooks = hooks_of(outer, 0);
  CHECK(hooks.feed_forward_output);
  CHECK(hooks.attention_residual);
  CHECK_FALSE(hooks.attention_input);
  CHECK_FALSE(hooks.inside());
}

}  // namespace model_layer_hooks_test
