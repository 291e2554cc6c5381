#include <slimtrim/model/prepared_weights.hpp>

#include <model/support.hpp>

#include <slimtrim/slim/quantize/rtn.hpp>

#include <doctest/doctest.h>

namespace model_prepared_weights_test {

using namespace slimtrim_tests;

namespace {

// Every second matrix packed, the others as they are.
class half_packed final : public weight_source {
 public:
  explicit half_packed(weight_source const& source) : source_(source) {}
  [[nodiscard]] bool has(module_id id) const override { return source_.has(id); }
  [[nodiscard]] weight matrix(module_id id) const override {
    weight const dense = source_.matrix(id);
    if (id.role != module_role::up && id.role != module_role::query && id.role != module_role::embedding) return dense;
    tensor<float, 2> const values = expand(dense.view);
    auto held = std::make_shared<quantized_matrix>(rtn(eigen_backend{}, values.view(), {}));
    weight packed;
    packed.view = held->view();
    packed.storage = std::move(held);
    return packed;
  }
  [[nodiscard]] std::vector<float> vector(module_id id) const override { return source_.vector(id); }
  void release(index_t layer) const override { released.push_back(layer); }

  mutable std::vector<index_t> released;

 private:
  weight_source const& source_;
};

// Counts what it is asked to prepare, and prepares by expanding.
struct expanding_backend : eigen_backend {
  mutable int prepared = 0;
  [[nodiscard]] weight prepare(weight const& w) const {
    ++prepared;
    return own_weight(expand(w.view));
  }
};
static_assert(prepares_weights<expanding_backend> && !prepares_weights<eigen_backend>);

}  // namespace

TEST_CASE("packed matrices are prepared once each, nothing else is") {
  model const& m = tiny_mixtral();
  plain_weights const plain(tiny_mixtral_files(), m.config);
  half_packed const source(plain);
  expanding_backend const backend;
  model const ready = load_model(backend, m.config, source);
  CHECK(backend.prepared == 8 * (1 + 8));  // one query and eight up projections a layer; the embedding stays packed
  CHECK(source.released == std::vector<index_t>{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(std::holds_alternative<matrix_view<float const>>(ready.layers[0].attention->query.view));
  CHECK(std::holds_alternative<quantized_view<>>(ready.ends.embedding.view));
  CHECK(std::get<matrix_view<bfloat16 const>>(ready.layers[3].attention->key.view).data ==
        std::get<matrix_view<bfloat16 const>>(m.layers[3].attention->key.view).data);

  forward_workspace work;
  auto const ids = input64();
  tensor<float, 2> with(64, m.config.hidden), without(64, m.config.hidden);
  forward(backend, ready, ids, with.view(), work);
  eigen_backend const plain_backend;
  forward(plain_backend, load_model(plain_backend, m.config, source), ids, without.view(), work);
  // The same float values, in products that add in another order.
  CHECK(largest_difference(as_const(with.view()), as_const(without.view())) < 1e-4);
}

}  // namespace model_prepared_weights_test
