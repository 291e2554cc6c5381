// An engine with its own tensors and its own forward pass asks slimtrim which expert of a layer matters least, and what
// four bits would cost that expert: docs/embedding.md.
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/importance/reap.hpp>
#include <slimtrim/router/route.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>

#include <cstdio>
#include <map>
#include <numeric>

// The engine's matrix: rows are padded to a multiple of 16 elements.
template <class T>
struct engine_matrix {
  long rows, columns, pitch = (columns + 15) / 16 * 16;
  std::vector<T> storage = std::vector<T>(static_cast<std::size_t>(rows * pitch));
  T* row(long r) { return storage.data() + r * pitch; }
  T const* row(long r) const { return storage.data() + r * pitch; }
};
using matrix = engine_matrix<float>;

// All that slimtrim has to know of it: where the elements lie.
template <class T>
struct slimtrim::tensor_traits<engine_matrix<T>> {
  template <int Rank, class Matrix>
    requires(Rank == 2)
  static auto view(Matrix& m) {
    return matrix_view<std::remove_pointer_t<decltype(m.row(0))>>(m.row(0), {m.rows, m.columns}, {m.pitch, 1});
  }
};

matrix random_matrix(long rows, long columns, std::uint64_t seed, double scale) {
  matrix m{rows, columns};
  for (unsigned i = 0; float& value : m.storage) value = static_cast<float>(scale * slimtrim::normal_at(seed, 0, i++));
  return m;
}
void multiply(matrix const& W, float const* x, float* y) {  // the engine's kernel, y = W x
  for (long o = 0; o < W.rows; ++o) y[o] = std::inner_product(x, x + W.columns, W.row(o), 0.0F);
}

int main() {
  using slimtrim::as_matrix;
  constexpr int tokens = 256, hidden = 100, experts = 8, top_k = 2;
  matrix const router = random_matrix(experts, hidden, 1, 0.1), X = random_matrix(tokens, hidden, 2, 1.0);
  std::vector<matrix> layer;  // in this toy, an expert is one matrix, and the first is the quietest
  for (unsigned e = 0; e < experts; ++e) layer.push_back(random_matrix(hidden, hidden, 3 + e, 0.02 * (e + 1)));
  matrix logits{tokens, experts}, scores{tokens, experts}, gates{tokens, top_k}, f{1, hidden}, Y{tokens, hidden};
  engine_matrix<std::int32_t> chosen{tokens, top_k};

  // The engine's forward pass over one window of tokens, with slimtrim's routing rule, and what slimtrim is told of it.
  slimtrim::eigen_backend const cpu;
  slimtrim::layer_statistics statistics({.experts = experts});
  statistics.norms.begin_window(tokens, top_k);
  for (int t = 0; t < tokens; ++t) multiply(router, X.row(t), logits.row(t));
  slimtrim::routing_view const routing{as_matrix(scores), as_matrix(chosen), as_matrix(gates)};
  slimtrim::route(cpu, as_matrix(logits), {.top_k = top_k}, {}, as_matrix(chosen), as_matrix(gates), as_matrix(scores));
  for (int i = 0; i < tokens * top_k; ++i) {
    int const t = i / top_k, slot = i % top_k, e = chosen.row(t)[slot];
    multiply(layer.begin()[e], X.row(t), f.row(0));
    statistics.norms.add_outputs(cpu, e, {&t, 1}, {&slot, 1}, as_matrix(f));
    for (int k = 0; k < hidden; ++k) Y.row(t)[k] += gates.row(t)[slot] * f.row(0)[k];
  }
  statistics.router.add(routing);
  statistics.norms.add(routing);
  statistics.commit_window();

  std::multimap<double, int> ranking;  // least important first, ties by the lower index
  for (int e = 0; double const score : slimtrim::reap_importance{}(statistics)) ranking.emplace(score, e++);
  for (auto const& [score, e] : ranking) std::printf("expert %d: REAP %.4f\n", e, score);
  matrix const& W = layer.begin()[ranking.begin()->second];
  auto const quantised = slimtrim::rtn(cpu, W, {.grid = {.bits = 4}, .groups = {.size = 32}});
  double error = 0, energy = 0;
  for (int i = 0; i < hidden * hidden; ++i) {
    float const w = W.row(i / hidden)[i % hidden], difference = w - quantised.view()(i / hidden, i % hidden);
    error += difference * difference, energy += w * w;
  }
  std::printf("its matrix in 4 bits: %td bytes, relative error %.4f\n", quantised.bytes(), std::sqrt(error / energy));
}
