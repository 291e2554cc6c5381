// What the tests of the model share: the bundled model, its golden numbers, and a small deterministic model.
#pragma once

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/model/model.hpp>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace slimtrim_tests {

using namespace slimtrim;

inline std::filesystem::path tiny_mixtral_folder() {
  return std::filesystem::path(SLIMTRIM_SOURCE_DIR) / "examples" / "models" / "tiny-mixtral";
}

inline std::shared_ptr<checkpoint const> tiny_mixtral_files() {
  static auto const files = std::make_shared<checkpoint const>(checkpoint::open(tiny_mixtral_folder()));
  return files;
}

inline model const& tiny_mixtral() {
  static model const bundled = load_model(tiny_mixtral_files());
  return bundled;
}

inline ordered_json const& tiny_mixtral_golden() {
  static ordered_json const golden = read_json_file(tiny_mixtral_folder() / "golden.json");
  return golden;
}

inline std::vector<std::uint32_t> input64() {
  return tiny_mixtral_golden().at("input64").at("ids").get<std::vector<std::uint32_t>>();
}

/// Little-endian 16-bit token ids; empty when the file is not there.
inline std::vector<std::uint32_t> read_u16(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::uint32_t> ids;
  char pair[2];
  while (file.read(pair, 2))
    ids.push_back(static_cast<std::uint32_t>(static_cast<unsigned char>(pair[0])) |
                  static_cast<std::uint32_t>(static_cast<unsigned char>(pair[1])) << 8);
  return ids;
}

/// -log softmax(logits)[target], in double.
inline double negative_log_likelihood(vector_view<float const> logits, std::uint32_t target) {
  double largest = static_cast<double>(logits(0)), sum = 0;
  for (index_t i = 1; i < logits.extent(0); ++i) largest = std::max(largest, static_cast<double>(logits(i)));
  for (index_t i = 0; i < logits.extent(0); ++i) sum += std::exp(static_cast<double>(logits(i)) - largest);
  return std::log(sum) + largest - static_cast<double>(logits(static_cast<index_t>(target)));
}

/// Pseudo-normal values times `size`.
inline tensor<float, 2> random_matrix(index_t rows, index_t columns, std::uint64_t stream, double size = 1) {
  tensor<float, 2> values(rows, columns);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < columns; ++j)
      values(i, j) = static_cast<float>(size * normal_at(7, stream, static_cast<std::uint64_t>(i * columns + j)));
  return values;
}

/// The largest |a - b|; infinity when a value of either is NaN.
inline double largest_difference(matrix_view<float const> a, matrix_view<float const> b) {
  double worst = 0;
  for (index_t i = 0; i < a.extent(0); ++i)
    for (index_t j = 0; j < a.extent(1); ++j) {
      double const difference = std::abs(static_cast<double>(a(i, j)) - static_cast<double>(b(i, j)));
      if (!(difference <= worst)) worst = std::isnan(difference) ? INFINITY : difference;
    }
  return worst;
}

/// A config.json of a small Mixtral, to be changed by tests.
inline ordered_json small_mixtral_config() {
  return parse_json(R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 40,
    "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 4, "num_local_experts": 5, "num_experts_per_tok": 2, "hidden_act": "silu",
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "max_position_embeddings": 128, "sliding_window": null,
    "tie_word_embeddings": false, "torch_dtype": "float32"})",
                    "config.json");
}

/// Random float weights for any config, made on demand; every module has its own stream.
class random_weights final : public weight_source {
 public:
  explicit random_weights(model_config const& config) : config_(config) {}
  bool has(module_id id) const override { return id.role != module_role::novice && has_module(config_, id); }
  weight matrix(module_id id) const override {
    auto const shape = module_shape(config_, id);
    return own_weight(random_matrix(shape[0], shape[1], stream(id), 0.4));
  }
  std::vector<float> vector(module_id id) const override {
    auto const values = random_matrix(1, module_shape(config_, id)[0], stream(id), 0.2);
    std::vector<float> result;
    for (index_t i = 0; i < values.extent(1); ++i) result.push_back(1 + values(0, i));
    return result;
  }

 private:
  static std::uint64_t stream(module_id id) {
    return static_cast<std::uint64_t>((id.layer * 64 + id.expert) * 32) + static_cast<std::uint64_t>(id.role);
  }
  model_config config_;
};

inline model small_model(ordered_json const& config) {
  model_config const read = read_model_config(config, "config.json");
  return load_model(read, random_weights(read));
}

inline std::vector<std::uint32_t> some_tokens(index_t count, std::uint32_t vocabulary, std::uint64_t stream = 1) {
  std::vector<std::uint32_t> ids;
  for (index_t i = 0; i < count; ++i)
    ids.push_back(static_cast<std::uint32_t>(random_bits_at(3, stream, static_cast<std::uint64_t>(i)) % vocabulary));
  return ids;
}

template <class Backend>
tensor<float, 2> all_logits(Backend const& backend, model const& m, std::span<std::uint32_t const> ids) {
  forward_workspace work;
  auto const tokens = static_cast<index_t>(ids.size());
  tensor<float, 2> states(tokens, m.config.hidden), logits(tokens, m.config.vocabulary);
  forward(backend, m, ids, states.view(), work);
  final_logits(backend, m.config, m.ends, states.view(), logits.view(), work);
  return logits;
}

}  // namespace slimtrim_tests
