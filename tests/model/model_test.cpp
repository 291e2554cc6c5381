#include <slimtrim/model/model.hpp>

#include <model/support.hpp>

#include <doctest/doctest.h>

namespace model_model_test {

using namespace slimtrim_tests;

TEST_CASE("streaming layer by layer equals the resident model") {
  model const& m = tiny_mixtral();
  plain_weights const source(tiny_mixtral_files(), m.config);
  eigen_backend const backend;
  forward_workspace work;
  auto const ids = input64();
  tensor<float, 2> streamed(64, m.config.hidden), resident(64, m.config.hidden);
  forward(backend, m, ids, resident.view(), work);
  embed(m.ends, ids, streamed.view());
  std::vector<index_t> reports;
  stream_layers(
      m.config, source,
      [&](index_t layer, decoder_layer& weights) {
        forward_layer(backend, m.config, weights, layer, streamed.view(), work);
      },
      [&](progress const& p) {
        CHECK(p.total == 8);
        reports.push_back(p.done);
      });
  CHECK(reports == std::vector<index_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(largest_difference(as_const(streamed.view()), as_const(resident.view())) == 0);
}

TEST_CASE("weights are views into the mapped file and keep it alive") {
  auto files = std::make_shared<checkpoint const>(checkpoint::open(tiny_mixtral_folder()));
  auto const mapped = files->bytes("lm_head.weight");
  weight head;
  {
    model const m = load_model(std::move(files));
    head = m.ends.head;
  }
  auto const* const view = std::get_if<matrix_view<bfloat16 const>>(&head.view);
  REQUIRE(view != nullptr);
  CHECK(static_cast<void const*>(view->data) == static_cast<void const*>(mapped.data()));
  CHECK(view->extent(0) == 2048);
  CHECK(std::isfinite(static_cast<float>((*view)(2047, 127))));
}

TEST_CASE("a progress callback may interrupt") {
  model const& m = tiny_mixtral();
  plain_weights const source(tiny_mixtral_files(), m.config);
  CHECK_THROWS_AS(stream_layers(m.config, source, [](index_t, decoder_layer&) {},
                                [](progress const& p) {
                                  if (p.done == 2) throw interrupted();
                                }),
                  interrupted);
}

}  // namespace model_model_test
