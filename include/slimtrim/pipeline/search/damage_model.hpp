// Predicted size and damage of candidates, from sizes of modules and damages that were measured one at a time.
#pragma once

#include <slimtrim/pipeline/search/search_space.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Which size is bounded.
enum class size_goal { file_bytes, active_bytes };

/// The damage of a candidate is predicted as the sum of the damages of its parts, each measured by itself, each times what
/// recovery or a second-order method was seen to leave of it.
struct damage_table {
  std::map<index_t, double> blocks{}, layers{}, experts{}, widths{};  ///< by amount; without recovery
  /// By class, layer (0 outside of layers) and bits: plain rounding of these matrices alone.
  std::map<std::tuple<std::size_t, index_t, int>, double> rounding{};
  double block_factor = 1, layer_factor = 1, expert_factor = 1, width_factor = 1;
  std::map<int, double> bits_factor{};  ///< by bits

  [[nodiscard]] double structure(structure_choice const& s) const {
    auto const of = [](std::map<index_t, double> const& table, index_t amount, double factor) {
      auto const at = table.find(amount);
      return amount == 0 ? 0.0 : (at == table.end() ? std::numeric_limits<double>::infinity() : factor * at->second);
    };
    return of(blocks, s.blocks, block_factor) + of(layers, s.layers, layer_factor) + of(experts, s.experts, expert_factor) +
           of(widths, s.width, width_factor);
  }
  [[nodiscard]] double rounded(std::size_t c, index_t layer, int bits) const {
    if (bits == dense_bits) return 0;
    auto const at = rounding.find({c, layer, bits});
    auto const factor = bits_factor.find(bits);
    if (at == rounding.end()) return std::numeric_limits<double>::infinity();
    return at->second * (factor == bits_factor.end() ? 1.0 : factor->second);
  }
};

/// Bytes of one class of one layer at each number of bits, and all that has no choice.
struct size_table {
  double fixed = 0;
  std::map<std::tuple<std::size_t, index_t, int>, double> bytes{};
};

/// Bytes of a matrix [rows, columns] at `bits`, with a 16-bit scale a group.
[[nodiscard]] inline double matrix_bytes_at(index_t rows, index_t columns, int bits, index_t group) {
  double const weights = static_cast<double>(rows) * static_cast<double>(columns);
  if (bits == dense_bits) return 2 * weights;
  return weights * bits / 8.0 + 2 * weights / static_cast<double>(group == 0 ? columns : group);
}

/// The table of the model that structure leaves. `source_layer[i]`: the input's number of layer i of `planned`. Active bytes count
/// the experts that a token takes.
[[nodiscard]] inline size_table sizes_of(model_config const& planned, std::vector<index_t> const& source_layer,
                                         std::vector<int> const& choices, index_t group, size_goal goal) {
  size_table table;
  for_each_module(planned, [&](module_id id) {
    std::vector<index_t> const shape = module_shape(planned, id);
    std::size_t const c = searched_class(id.role);
    double share = 1;
    if (goal == size_goal::active_bytes) {
      if (c == 0) share = static_cast<double>(planned.layer(id.layer).top_k) / static_cast<double>(planned.layer(id.layer).experts);
      if (id.role == module_role::embedding && !planned.tied_embeddings) share = 1 / static_cast<double>(planned.vocabulary);
    }
    if (c == searched_classes.size() || shape.size() < 2) {
      double count = 2;
      for (index_t const extent : shape) count *= static_cast<double>(extent);
      table.fixed += count;
      return;
    }
    index_t const layer = is_layer_class(c) ? source_layer[static_cast<std::size_t>(id.layer)] : 0;
    for (int const bits : choices) table.bytes[{c, layer, bits}] += share * matrix_bytes_at(shape[0], shape[1], bits, group);
  });
  return table;
}

/// What `assign_bits` finds.
struct bits_assignment {
  std::vector<std::vector<int>> bits{};
  double bytes = 0;
  double damage = 0;  ///< of the rounding alone
};

/// Bits for every class and layer so that the sizes fit `bytes`: all start at the most; the step down that adds least damage for
/// each byte that it saves is taken until they fit. Ties to the lower class, then the lower layer. Nothing when even the least
/// bits do not fit. choices: bits by class, falling. Cost O(classes * layers * choices)^2.
[[nodiscard]] inline std::optional<bits_assignment> assign_bits(size_table const& sizes, damage_table const& damages,
                                                                std::vector<std::vector<int>> const& choices, index_t layers,
                                                                double bytes) {
  bits_assignment result;
  result.bits.assign(searched_classes.size(), std::vector<int>(static_cast<std::size_t>(layers), dense_bits));
  result.bytes = sizes.fixed;
  struct item {
    std::size_t c;
    index_t layer;
    std::size_t at = 0;  // into choices[c]
  };
  std::vector<item> items;
  for (std::size_t c = 0; c < choices.size(); ++c)
    for (index_t i = 0; i < layers; ++i)
      if (auto const found = choices[c].empty() ? sizes.bytes.end() : sizes.bytes.find({c, i, choices[c].front()}); found != sizes.bytes.end()) {
        items.push_back({c, i, 0});
        result.bytes += found->second;
        result.damage += damages.rounded(c, i, choices[c].front());
      }
  auto const size = [&](item const& x, std::size_t at) { return sizes.bytes.at({x.c, x.layer, choices[x.c][at]}); };
  auto const damage = [&](item const& x, std::size_t at) { return damages.rounded(x.c, x.layer, choices[x.c][at]); };
  while (result.bytes > bytes) {
    item* best = nullptr;
    std::size_t best_at = 0;
    double least = std::numeric_limits<double>::infinity();
    for (item& x : items)
      // A jump over several steps may be better for each byte than the next one alone.
      for (std::size_t to = x.at + 1; to < choices[x.c].size(); ++to) {
        double const price = std::max(damage(x, to) - damage(x, x.at), 0.0) / (size(x, x.at) - size(x, to));
        if (best == nullptr || price < least) {
          best = &x;
          best_at = to;
          least = price;
        }
      }
    if (best == nullptr) return std::nullopt;
    result.bytes += size(*best, best_at) - size(*best, best->at);
    result.damage += damage(*best, best_at) - damage(*best, best->at);
    best->at = best_at;
  }
  // What the last, large step left over is spent where it helps most.
  for (bool spent = true; spent;) {
    spent = false;
    item* best = nullptr;
    std::size_t best_at = 0;
    double most = 0;
    for (item& x : items)
      for (std::size_t to = x.at; to-- > 0;) {
        double const gain = damage(x, x.at) - damage(x, to);
        if (result.bytes + size(x, to) - size(x, x.at) <= bytes && gain > most) {
          best = &x;
          best_at = to;
          most = gain;
        }
      }
    if (best != nullptr) {
      result.bytes += size(*best, best_at) - size(*best, best->at);
      result.damage -= most;
      best->at = best_at;
      spent = true;
    }
  }
  for (item const& x : items) result.bits[x.c][static_cast<std::size_t>(x.layer)] = choices[x.c][x.at];
  return result;
}

}  // namespace v0
}  // namespace slimtrim
