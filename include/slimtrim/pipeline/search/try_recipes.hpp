// Whole recipes: proposed by prediction, carried out in memory, measured, varied.
#pragma once

#include <slimtrim/pipeline/search/search_state.hpp>
#include <slimtrim/pipeline/search/slimmed_model.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Measures recipes of a search whose `orders` and `damages` are known.
template <host_backend B>
class recipe_trials {
 public:
  explicit recipe_trials(search_state<B>& state) : s_(state) {}

  // What the real methods leave of a damage that was measured the plain way.
  void factors() {
    auto const factor = [](double left, double plain) { return plain > 0 ? std::clamp(left / plain, 0.02, 1.5) : 1.0; };
    for (int const bits : s_.options.bits) {
      if (s_.model.format != nullptr || bits >= 8 || s_.out_of_time()) continue;
      double plain = 0;
      for (auto const& [key, value] : s_.damages.rounding)
        if (std::get<2>(key) == bits && is_layer_class(std::get<0>(key))) plain += value;
      s_.damages.bits_factor[bits] = factor(real_kl({{}, s_.all_at(bits)}), plain);
    }
    auto const of = [&](std::map<index_t, double> const& table, double& into, auto&& choice) {
      if (table.empty() || s_.out_of_time()) return;
      // The amount in the middle, whose damage is above nothing.
      auto at = table.begin();
      std::advance(at, static_cast<std::ptrdiff_t>(table.size() / 2));
      into = factor(real_kl({choice(at->first), s_.all_at(dense_bits)}), at->second);
    };
    of(s_.damages.blocks, s_.damages.block_factor, [](index_t n) { return structure_choice{n, 0, 0, 0}; });
    of(s_.damages.layers, s_.damages.layer_factor, [](index_t n) { return structure_choice{0, n, 0, 0}; });
    of(s_.damages.experts, s_.damages.expert_factor, [](index_t n) { return structure_choice{0, 0, n, 0}; });
    of(s_.damages.widths, s_.damages.width_factor, [](index_t n) { return structure_choice{0, 0, 0, n}; });
  }

  // Carries a candidate out in memory and measures it; once.
  double real_kl(search_candidate const& c, double predicted = 0) {
    for (auto const& [known, seen] : measured_)
      if (known == c) return seen.kl;
    plan const p = s_.whole_plan(c);
    s_.tell("try recipes", static_cast<index_t>(measured_.size()), s_.options.most_recipes, "recipes");
    calibrated_options how;
    how.fit.ridges = s_.options.ridges;
    opened_model const made = slimmed_model(s_.backend, s_.model, p, s_.carried, how);
    inspection const size = price(s_.model, p);
    searched_recipe seen;
    seen.steps.steps = structure_steps(c.structure, s_.orders, s_.config(), s_.options.uniform);
    for (step const& s : p.slimming) seen.steps.steps.push_back(s);
    seen.steps.text = to_string(seen.steps);
    seen.bytes = size.file_bytes;
    seen.active_bytes = static_cast<std::uint64_t>(size.total.active_bytes);
    seen.kl = s_.full_kl(made);
    seen.predicted = predicted;
    measured_.emplace_back(c, seen);
    return seen.kl;
  }
  // The candidates that were measured, in order.
  [[nodiscard]] std::vector<std::pair<search_candidate, searched_recipe>> const& measured() const { return measured_; }

  struct proposal {
    search_candidate candidate{};
    double predicted = 0;
  };
  // The best bits for a structure within the target, by prediction; nothing when it does not fit. Sizes are checked exactly.
  [[nodiscard]] std::optional<proposal> propose(structure_choice const& s) {
    double const structural = s_.damages.structure(s);
    if (!std::isfinite(structural)) return std::nullopt;
    plan const& p = s_.structure_plan(s);
    model_config const planned = planned_config(s_.config(), p);
    std::vector<int> all;
    for (auto const& choice : s_.choices) all.insert(all.end(), choice.begin(), choice.end());
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    size_table const sizes = sizes_of(planned, s_.left(p), all, common_group(s_.config(), s.width), s_.options.goal);
    double room = static_cast<double>(s_.options.target);
    for (int round = 0; round < 6; ++round) {
      auto const bits = assign_bits(sizes, s_.damages, s_.choices, s_.config().layer_count(), room);
      if (!bits) return std::nullopt;
      proposal found{{s, bits->bits}, structural + bits->damage};
      std::uint64_t const exact = s_.goal_bytes(price(s_.model, s_.whole_plan(found.candidate)));
      if (exact <= s_.options.target) return found;
      // Headers and small tensors are not in the table.
      room -= static_cast<double>(exact) - std::min(bits->bytes, room) + 16;
    }
    return std::nullopt;
  }

  [[nodiscard]] std::vector<structure_choice> all_structures() const {
    std::vector<structure_choice> result;
    auto const amounts_of = [](std::map<index_t, double> const& table) {
      std::vector<index_t> amounts{0};
      for (auto const& [amount, damage] : table) amounts.push_back(amount);
      return amounts;
    };
    for (index_t const b : amounts_of(s_.damages.blocks))
      for (index_t const l : amounts_of(s_.damages.layers))
        for (index_t const k : amounts_of(s_.damages.experts))
          for (index_t const w : amounts_of(s_.damages.widths)) {
            structure_choice const s{b, l, k, w};
            if (s_.possible(s)) result.push_back(s);
          }
    return result;
  }

  void shortlist() {
    std::vector<proposal> proposals;
    for (structure_choice const& s : all_structures()) {
      // Structures whose damage alone is beyond what is known to be possible need no bits.
      if (s_.damages.structure(s) > 4 * best_prediction_) continue;
      if (auto found = propose(s)) {
        best_prediction_ = std::min(best_prediction_, found->predicted);
        proposals.push_back(std::move(*found));
      }
    }
    std::stable_sort(proposals.begin(), proposals.end(), [](proposal const& a, proposal const& b) { return a.predicted < b.predicted; });
    // The best of each kind of structure, so that no single method is left out, then the best of all.
    std::set<std::array<bool, 4>> kinds;
    std::vector<proposal> first, rest;
    for (proposal& each : proposals) {
      structure_choice const& s = each.candidate.structure;
      bool const fresh = kinds.insert({s.blocks != 0, s.layers != 0, s.experts != 0, s.width != 0}).second;
      (fresh ? first : rest).push_back(std::move(each));
    }
    index_t const half = s_.options.most_recipes / 2;
    for (std::vector<proposal> const* list : {&first, &rest})
      for (proposal const& each : *list) {
        bool const enough = fitting_ >= (list == &first ? std::min<index_t>(half, 10) : half);
        if (enough || (fitting_ > 0 && s_.out_of_time())) break;
        try_out(each);
      }
  }
  void try_out(proposal const& each) {
    real_kl(each.candidate, each.predicted);
    ++fitting_;
  }

  // The best recipe that fits, by measured KL; ties to the one found first.
  [[nodiscard]] std::size_t best() const {
    std::size_t at = measured_.size();
    for (std::size_t i = 0; i < measured_.size(); ++i)
      if (s_.goal_bytes(measured_[i].second) <= s_.options.target && (at == measured_.size() || measured_[i].second.kl < measured_[at].second.kl)) at = i;
    return at;
  }

  // Neighbouring structures with new bits, and the same structure with bits moved between classes and layers.
  [[nodiscard]] std::vector<proposal> neighbours(search_candidate const& c) {
    std::vector<proposal> found;
    auto const step_in = [](std::map<index_t, double> const& table, index_t amount, int direction, index_t nothing) {
      std::vector<index_t> amounts{nothing};
      for (auto const& [value, damage] : table) amounts.push_back(value);
      // Amounts that are kept grow towards "all", which is written as 0.
      auto const at = std::find(amounts.begin(), amounts.end(), amount) - amounts.begin();
      auto const count = static_cast<std::ptrdiff_t>(amounts.size());
      return amounts[static_cast<std::size_t>(((at + direction) % count + count) % count)];
    };
    for (int const direction : {1, -1})
      for (int axis = 0; axis < 4; ++axis) {
        structure_choice s = c.structure;
        if (axis == 0) s.blocks = step_in(s_.damages.blocks, s.blocks, direction, 0);
        if (axis == 1) s.layers = step_in(s_.damages.layers, s.layers, direction, 0);
        if (axis == 2) s.experts = step_in(s_.damages.experts, s.experts, direction, 0);
        if (axis == 3) s.width = step_in(s_.damages.widths, s.width, direction, 0);
        if (s == c.structure || !s_.possible(s)) continue;
        if (auto each = propose(s)) found.push_back(std::move(*each));
      }
    // Bits: each item one step up, paid for by the cheapest steps down elsewhere.
    plan const& p = s_.structure_plan(c.structure);
    for (std::size_t k = 0; k < searched_classes.size(); ++k)
      for (index_t const i : s_.left(p)) {
        if (s_.choices[k].size() < 2 || (!is_layer_class(k) && i != s_.left(p).front())) continue;
        auto const place = static_cast<std::size_t>(is_layer_class(k) ? i : 0);
        auto const at = std::find(s_.choices[k].begin(), s_.choices[k].end(), c.bits[k][place]);
        if (at == s_.choices[k].begin() || at == s_.choices[k].end()) continue;
        damage_table const keep = s_.damages;
        // Forbid this item anything below one step up, then assign anew.
        for (auto lower = at; lower != s_.choices[k].end(); ++lower)
          s_.damages.rounding[{k, static_cast<index_t>(place), *lower}] = std::numeric_limits<double>::max() / 1e6;
        auto each = propose(c.structure);
        s_.damages = keep;
        if (!each || each->candidate.bits[k][place] != *(at - 1)) continue;
        each->predicted = prediction(each->candidate);
        found.push_back(std::move(*each));
      }
    std::stable_sort(found.begin(), found.end(), [](proposal const& a, proposal const& b) { return a.predicted < b.predicted; });
    return found;
  }
  [[nodiscard]] double prediction(search_candidate const& c) {
    double sum = s_.damages.structure(c.structure);
    for (index_t const i : s_.left(s_.structure_plan(c.structure)))
      for (std::size_t k = 0; k < searched_classes.size(); ++k)
        if (is_layer_class(k) && s_.choices[k].size() > 1 && s_.has_class(k, i)) sum += s_.damages.rounded(k, i, c.bits[k][static_cast<std::size_t>(i)]);
    return sum;
  }

  void vary() {
    for (bool better = true; better;) {
      better = false;
      std::size_t const now = best();
      if (now == measured_.size()) return;
      double const kl = measured_[now].second.kl;
      search_candidate const from = measured_[now].first;
      for (proposal const& each : neighbours(from)) {
        bool const known = std::any_of(measured_.begin(), measured_.end(), [&](auto const& m) { return m.first == each.candidate; });
        if (known) continue;
        if (static_cast<index_t>(measured_.size()) >= s_.options.most_recipes || s_.out_of_time()) return;
        if (real_kl(each.candidate, each.predicted) < kl) {
          better = true;
          break;
        }
      }
    }
  }

 private:
  search_state<B>& s_;
  std::vector<std::pair<search_candidate, searched_recipe>> measured_{};
  double best_prediction_ = std::numeric_limits<double>::max() / 8;
  index_t fitting_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
