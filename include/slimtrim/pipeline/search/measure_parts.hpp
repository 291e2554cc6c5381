// The damage of each part by itself: orders of layers, numbers of experts, widths, bits of each class in each layer.
#pragma once

#include <slimtrim/pipeline/search/search_state.hpp>
#include <slimtrim/pipeline/search/slimmed_model.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Fills `orders` and `damages` of a search by short evaluations. What the time bound cuts off is not there afterwards, and is
/// not part of any candidate.
template <host_backend B>
class part_measures {
 public:
  explicit part_measures(search_state<B>& state) : s_(state) {}

  void structure() {
    order_layers();
    amounts();
  }
  void bits() { rounding(); }

 private:
  // Which layers go first: by measured KL for models of few layers, else by similarity.
  void order_layers() {
    constexpr index_t few = 16;
    index_t const count = s_.config().layer_count();
    for (layer_part const part : {layer_part::block, layer_part::moe}) {
      std::vector<index_t> open, chosen;
      for (index_t i = 0; i < count; ++i)
        if (detail::has_part(s_.everything, s_.config(), part, i)) open.push_back(i);
      index_t const most = std::min<index_t>(count / 2, static_cast<index_t>(open.size()) - 1);
      std::map<index_t, double>& damages = part == layer_part::block ? s_.damages.blocks : s_.damages.layers;
      step asks;
      asks.method = part == layer_part::block ? method::block_drop : method::layer_drop;
      asks.criterion = "cosine";
      std::vector<layer_candidate> similar;
      for (index_t const i : open)
        similar.push_back({i, layer_similarity(s_.measured(asks).layer(i).similarity, part, layer_criterion::cosine)});
      std::stable_sort(similar.begin(), similar.end(), [](auto const& a, auto const& b) { return a.similarity > b.similarity; });
      for (index_t step = 0; step < most; ++step) {
        s_.tell("try drops", step + (part == layer_part::moe ? most : 0), 2 * most, "drops");
        index_t best = -1;
        double least = 0;
        for (layer_candidate const& c : similar) {
          if (std::find(chosen.begin(), chosen.end(), c.layer) != chosen.end()) continue;
          std::vector<index_t> dropped = chosen;
          dropped.push_back(c.layer);
          double const kl = s_.kl(detail::without_parts(s_.everything, part, dropped));
          if (best < 0 || kl < least) best = c.layer, least = kl;
          if (count > few) break;
          if (s_.out_of_time()) break;
        }
        chosen.push_back(best);
        damages[step + 1] = least;
        if (s_.out_of_time()) break;
      }
      (part == layer_part::block ? s_.orders.blocks : s_.orders.layers) = std::move(chosen);
    }
  }

  // Damages of keeping fewer experts and narrower ones.
  void amounts() {
    index_t experts = 0, floor = 1, width = 0;
    bool equal = true, shared = false;
    for (layer_config const& layer : s_.config().layers) {
      if (layer.feed_forward != feed_forward_kind::moe) continue;
      equal = equal && (experts == 0 || (experts == layer.experts && width == layer.intermediate));
      experts = layer.experts;
      width = layer.intermediate;
      floor = std::max(floor, layer.top_k);
      shared = shared || layer.shared_intermediate > 0;
    }
    // `k/E` speaks of one number of experts.
    if (experts == 0 || !equal) return;
    index_t const stride = std::max<index_t>(experts / 8, 1);
    index_t const groups = std::max<index_t>(s_.config().routing.groups, 1);
    for (index_t k = experts - stride; k >= floor && !s_.out_of_time(); k -= stride) {
      if (k % groups != 0) continue;
      s_.tell("try fewer experts", experts - k, experts, "experts");
      s_.damages.experts[k] = s_.kl(s_.structure_plan({0, 0, k, 0}));
    }
    // Neurons of packed weights cannot go, and shared experts may take their width from the same number.
    if (shared || s_.model.format != nullptr) return;
    index_t const group = common_group(s_.config(), 0);
    index_t const narrowest = group == 0 ? std::max<index_t>(width / 8, 1) : std::min<index_t>(group, std::max<index_t>(width / 8, 32));
    for (index_t w = width - std::max<index_t>(narrowest, 1); w >= width / 4 && w > 0 && !s_.out_of_time(); w -= std::max<index_t>(narrowest, 1)) {
      s_.tell("try narrower experts", width - w, width, "neurons");
      s_.damages.widths[w] = s_.kl(s_.structure_plan({0, 0, 0, w}));
    }
  }

  // Plain rounding of one class of one layer, or of a class in all layers at once where there are many.
  void rounding() {
    constexpr index_t few = 16;
    bool const by_layer = s_.config().layer_count() <= few;
    index_t const group = common_group(s_.config(), 0);
    index_t done = 0;
    for (std::size_t c = 0; c < searched_classes.size(); ++c)
      for (int const bits : s_.choices[c]) {
        if (bits == dense_bits) continue;
        std::vector<index_t> layers{0};
        if (is_layer_class(c)) {
          layers.clear();
          for (index_t i = 0; i < s_.config().layer_count(); ++i)
            if (s_.has_class(c, i)) layers.push_back(i);
        }
        auto const measure = [&](std::vector<index_t> const& where) {
          packed_scheme scheme;
          scheme.bits = bits;
          scheme.group = group;
          opened_model changed = s_.model;
          changed.weights = std::make_shared<rounded_weights<B>>(s_.backend, s_.model.weights, [=](module_id id) -> std::optional<packed_scheme> {
            if (searched_class(id.role) != c || (is_layer_class(c) && std::find(where.begin(), where.end(), id.layer) == where.end()))
              return std::nullopt;
            return scheme;
          });
          s_.tell("try bits", done++, 0, "roundings");
          return s_.kl(changed, is_layer_class(c) ? where.front() : 0);
        };
        if (by_layer || !is_layer_class(c)) {
          for (index_t const i : layers)
            if (!s_.out_of_time()) s_.damages.rounding[{c, i, bits}] = measure({i});
        } else if (!layers.empty() && !s_.out_of_time()) {
          double const together = measure(layers);
          for (index_t const i : layers) s_.damages.rounding[{c, i, bits}] = together / static_cast<double>(layers.size());
        }
      }
  }

  search_state<B>& s_;
};

}  // namespace v0
}  // namespace slimtrim
