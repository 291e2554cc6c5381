// What a search is asked for, and what it finds.
#pragma once

#include <slimtrim/pipeline/calibrated_pass.hpp>
#include <slimtrim/pipeline/plan.hpp>
#include <slimtrim/pipeline/recipe.hpp>
#include <slimtrim/pipeline/search/damage_model.hpp>

#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct search_options {
  size_goal goal = size_goal::file_bytes;
  std::uint64_t target = 0;              ///< most bytes
  double seconds = 600;                  ///< then the best recipe so far is taken
  std::vector<int> bits{2, 3, 4, 8};     ///< of linears; 16 (as they are) is always a choice
  bool quantise_ends = false;            ///< head and embedding have a choice too (8 bits, or 4)
  bool uniform = false;                  ///< every layer keeps the same number of experts
  index_t held_out = 32;                 ///< windows that measure recipes; at most a quarter of all, at least one
  index_t glanced = 8;                   ///< of these, windows that measure parts
  index_t most_recipes = 32;             ///< recipes that are carried out in memory
  index_t fitted = 64;                   ///< windows that these calibrate and recover on, at most
  std::vector<double> ridges{0.1, 1.0};  ///< of the recovery while searching; fewer than a compression tries
  progress_callback progress{};
};

/// One recipe that was carried out and measured.
struct searched_recipe {
  recipe steps{};
  std::uint64_t bytes = 0;
  std::uint64_t active_bytes = 0;
  double kl = 0;         ///< on the held-out windows
  double predicted = 0;
};

struct search_result {
  slimtrim::plan plan{};
  searched_recipe best{};
  std::vector<searched_recipe> front{};  ///< no other measured recipe is smaller and better; by size
  ordered_json why{};                    ///< the parts that the prediction was made of
  index_t evaluations = 0;               ///< short ones
  index_t recipes = 0;                   ///< carried out
  bool cut_short = false;                ///< by the time bound: another machine may find another recipe
};

}  // namespace v0
}  // namespace slimtrim
