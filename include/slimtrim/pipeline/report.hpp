// One self-contained HTML page from the JSON that the program's commands print: what was made, how large, how different,
// and which modules went and why.
//
// A report folder holds `<name>.<anything>.json`. What a file is says its `command`. Files of one name belong together; `base` is the
// original model.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/pipeline/report_figures.hpp>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The documents of one report folder, by name and kind.
struct report_documents {
  struct model {
    std::string name;
    ordered_json compress = nullptr, evaluation = nullptr, inspection = nullptr, speed = nullptr;
  };
  std::vector<model> models;  ///< `base` first, then by name
  ordered_json statistics = nullptr;
  std::vector<std::pair<std::string, ordered_json>> searches;
};

/// What a file is about: its name without .json and without the word before it, if there is one (NAME.compress.json, NAME.eval.json;
/// the name may hold points, as those of numbers).
[[nodiscard]] inline std::string report_name(std::filesystem::path const& path) {
  std::filesystem::path const stem = path.stem();
  std::string const word = stem.extension().native();
  bool const letters = word.size() > 1 && std::all_of(word.begin() + 1, word.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  return letters ? stem.stem().native() : stem.native();
}

/// Reads every .json file of a folder; those of other commands, and of others than slimtrim, are passed over. Throws `input_error` for a
/// folder without any, a file that is not JSON, or a second one of the same kind about the same model.
[[nodiscard]] inline report_documents read_report_folder(std::filesystem::path const& folder) {
  std::error_code code;
  std::vector<std::filesystem::path> files;
  for (std::filesystem::directory_iterator at(folder, code), end; !code && at != end; at.increment(code))
    if (at->path().extension() == ".json") files.push_back(at->path());
  if (code) throw input_error(printable(folder.native(), 1000), "expected a folder with JSON files, found " + code.message());
  std::sort(files.begin(), files.end());
  std::map<std::string, report_documents::model> models;
  report_documents documents;
  for (auto const& path : files) {
    ordered_json document = read_json_file(path);
    if (!document.is_object()) continue;
    ordered_json const* const by = find_field(document, "command");
    std::string const command = by != nullptr && by->is_string() ? by->get<std::string>() : std::string();
    std::string const name = report_name(path);
    report_documents::model& model = models[name];
    model.name = name;
    auto const put = [&](ordered_json& place, std::string const& of) {
      if (!place.is_null())
        throw input_error(printable(path.native(), 1000), "expected one document of " + command + of + ", found a second");
      place = std::move(document);
    };
    std::string const about = " about '" + printable(name) + "'";
    if (command == "compress") put(model.compress, about);
    if (command == "eval") put(model.evaluation, about);
    if (command == "bench") put(model.speed, about);
    if (command == "inspect") put(model.inspection, about);
    if (command == "stats show") put(documents.statistics, " in the folder");
    if (command == "plan" && document.contains("front")) documents.searches.emplace_back(name, std::move(document));
  }
  for (auto& [name, model] : models)
    if (!model.compress.is_null() || !model.evaluation.is_null() || !model.inspection.is_null() || !model.speed.is_null())
      documents.models.push_back(std::move(model));
  std::stable_sort(documents.models.begin(), documents.models.end(),
                   [](auto const& a, auto const& b) { return (a.name == "base") > (b.name == "base"); });
  if (documents.models.empty() && documents.statistics.is_null() && documents.searches.empty())
    throw input_error(printable(folder.native(), 1000),
                      "expected JSON files of compress, eval, bench, inspect, stats show or a search of plan (written with --json), found none");
  return documents;
}

namespace detail {

[[nodiscard]] inline double number_at(ordered_json const& object, char const* key) {
  ordered_json const* const value = find_field(object, key);
  return value != nullptr && value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

[[nodiscard]] inline double model_bytes(report_documents::model const& m) {
  double const out = number_at(m.compress, "bytes_out");
  return std::isfinite(out) ? out : number_at(m.inspection, "bytes");
}
[[nodiscard]] inline double model_active_bytes(report_documents::model const& m) {
  double const out = number_at(m.compress, "active_bytes_out");
  return std::isfinite(out) ? out : number_at(m.inspection, "active_bytes");
}

// Which layers a compress document dropped: moe, attention, block.
[[nodiscard]] inline std::vector<std::pair<std::string, std::vector<index_t>>> dropped_layers(ordered_json const& compress) {
  std::vector<std::pair<std::string, std::vector<index_t>>> result;
  ordered_json const* const steps = find_field(compress, "steps");
  if (steps == nullptr || !steps->is_array()) return result;
  for (ordered_json const& step : *steps) {
    ordered_json const* const dropped = find_field(step, "dropped");
    if (dropped == nullptr || !dropped->is_array()) continue;
    std::vector<index_t> layers;
    for (ordered_json const& layer : *dropped)
      if (layer.is_number_integer()) layers.push_back(layer.get<index_t>());
    result.emplace_back(step.value("step", std::string()), std::move(layers));
  }
  return result;
}

// One sentence a step: what went, and the score that decided.
[[nodiscard]] inline std::string step_story(ordered_json const& step) {
  std::string const name = step.value("step", std::string());
  std::string text = "<li><b>" + escape_markup(name) + "</b>: ";
  if (ordered_json const* const order = find_field(step, "order"); order != nullptr && order->is_array() && !order->empty()) {
    text += "went, in this order: ";
    bool first = true;
    for (ordered_json const& one : *order) {
      text += (first ? "layer " : ", layer ") + std::to_string(one.value("layer", index_t{0})) + " (" +
              escape_markup(step.value("criterion", std::string("score"))) + " " +
              short_number(number_at(one, "score")) + ")";
      first = false;
    }
  } else if (ordered_json const* const layers = find_field(step, "layers"); layers != nullptr && layers->is_array()) {
    index_t before = 0, after = 0;
    std::string lists;
    for (ordered_json const& layer : *layers) {
      if (!layer.contains("experts") || !layer.contains("kept")) continue;
      before += static_cast<index_t>(layer["experts"].size());
      after += static_cast<index_t>(layer["kept"].size());
      std::string gone;
      for (ordered_json const& expert : layer["experts"])
        if (std::find(layer["kept"].begin(), layer["kept"].end(), expert) == layer["kept"].end())
          gone += (gone.empty() ? "" : " ") + expert.dump();
      if (!gone.empty()) lists += (lists.empty() ? "" : "; ") + ("layer " + layer["layer"].dump() + ": " + gone);
    }
    text += std::to_string(before - after) + " of " + std::to_string(before) + " experts went by lowest " +
            escape_markup(step.value("criterion", std::string("score"))) + " (" + escape_markup(lists) + ")";
  } else if (ordered_json const* const modules = find_field(step, "modules"); modules != nullptr && modules->is_number()) {
    text += modules->dump() + " matrices";
  }
  return text + "</li>\n";
}

[[nodiscard]] inline std::string table_cell(double value, int digits = 4) {
  return "<td>" + (std::isfinite(value) ? short_number(value, digits) : std::string("-")) + "</td>";
}

[[nodiscard]] inline std::vector<std::string> layer_names(std::size_t count) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) names.push_back("layer " + std::to_string(i));
  return names;
}

}  // namespace detail

/// The similarities of every layer as a heat map; crossed out: dropped by `compress` (null: nothing).
[[nodiscard]] inline heat_map similarity_map(ordered_json const& statistics, ordered_json const& compress = nullptr) {
  heat_map map;
  map.title = "Mean cosine of what goes in and what comes out: the nearer to 1, the less the part does";
  map.columns = {"MoE", "attention", "block"};
  ordered_json const& layers = statistics.at("layers");
  map.rows = detail::layer_names(layers.size());
  auto const dropped = detail::dropped_layers(compress);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    ordered_json const& seen = layers[i].at("similarity");
    map.values.push_back({detail::number_at(seen, "moe"), detail::number_at(seen, "attention"), detail::number_at(seen, "block")});
    std::vector<bool> marks(3, false);
    for (auto const& [step, gone] : dropped)
      if (std::find(gone.begin(), gone.end(), static_cast<index_t>(i)) != gone.end())
        marks[step.rfind("block", 0) == 0 ? 2 : (step.rfind("attention", 0) == 0 ? 1 : 0)] = true;
    map.marked.push_back(std::move(marks));
  }
  if (!dropped.empty()) map.mark_meaning = "crossed out: dropped by " + compress.value("recipe", std::string());
  return map;
}

/// One criterion's scores of all experts as a heat map; crossed out: dropped by `compress` (null: nothing).
[[nodiscard]] inline heat_map importance_map(ordered_json const& statistics, std::string const& criterion,
                                             ordered_json const& compress = nullptr) {
  heat_map map;
  map.title = "Expert importance: " + criterion;
  ordered_json const& layers = statistics.at("layers");
  map.rows = detail::layer_names(layers.size());
  std::size_t most = 0;
  bool any_mark = false;
  for (ordered_json const& layer : layers) {
    std::vector<double> row;
    ordered_json const* const importance = find_field(layer, "importance");
    ordered_json const* const scores = importance != nullptr ? find_field(*importance, criterion) : nullptr;
    if (scores != nullptr)
      for (ordered_json const& score : *scores)
        row.push_back(score.is_number() ? score.get<double>() : std::numeric_limits<double>::quiet_NaN());
    most = std::max(most, row.size());
    map.values.push_back(std::move(row));
    map.marked.emplace_back(map.values.back().size(), false);
  }
  if (ordered_json const* const steps = find_field(compress, "steps"); steps != nullptr && steps->is_array())
    for (ordered_json const& step : *steps) {
      ordered_json const* const decided = find_field(step, "layers");
      if (decided == nullptr || !decided->is_array()) continue;
      for (ordered_json const& layer : *decided) {
        if (!layer.contains("experts") || !layer.contains("kept")) continue;
        auto const at = layer["layer"].get<std::size_t>();
        for (ordered_json const& expert : layer["experts"])
          if (std::find(layer["kept"].begin(), layer["kept"].end(), expert) == layer["kept"].end() &&
              at < map.marked.size() && expert.get<std::size_t>() < map.marked[at].size())
            map.marked[at][expert.get<std::size_t>()] = any_mark = true;
      }
    }
  for (std::size_t e = 0; e < most; ++e) map.columns.push_back("expert " + std::to_string(e));
  if (any_mark) map.mark_meaning = "crossed out: dropped by " + compress.value("recipe", std::string());
  return map;
}

/// Size against damage of all models of the folder that were compared with a base.
[[nodiscard]] inline std::vector<plotted_model> plotted_models(report_documents const& documents) {
  std::vector<plotted_model> models;
  for (auto const& m : documents.models) {
    double const bytes = detail::model_bytes(m);
    double const damage = m.name == "base" ? 0.0 : detail::number_at(m.evaluation, "kl_mean");
    if (std::isfinite(bytes) && std::isfinite(damage)) models.push_back({m.name, bytes, damage});
  }
  return models;
}

namespace detail {

// The front of a planner's search: a curve of numbered points, and the recipes behind the numbers.
[[nodiscard]] inline std::string search_section(ordered_json const& search) {
  std::vector<plotted_model> front;
  std::string table = "<table><tr><th>point</th><th>recipe</th><th>bytes</th><th>active bytes per token</th><th>KL (nats)</th>"
                      "<th>predicted</th></tr>\n";
  for (ordered_json const& point : search.at("front")) {
    std::string const number = std::to_string(front.size() + 1);
    front.push_back({number, number_at(point, "bytes"), number_at(point, "kl")});
    table += "<tr><td>" + number + "</td><td><code>" + escape_markup(point.value("steps", point.value("recipe", std::string()))) +
             "</code></td>" + table_cell(number_at(point, "bytes") / 1e6) + table_cell(number_at(point, "active_bytes") / 1e6) +
             table_cell(number_at(point, "kl")) + table_cell(number_at(point, "predicted")) + "</tr>\n";
  }
  return "<figure>" + svg_of(front, "Best recipes seen: size against damage", true) +
         "<figcaption>Measured on windows that neither decided nor calibrated. Bytes in MB.</figcaption></figure>\n" + table + "</table>\n";
}

[[nodiscard]] inline std::string report_page(report_documents const& documents, std::string const& title) {
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>" + escape_markup(title) + "</title>\n<style>\n"
      ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
      "table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}th,td{padding:.3rem .7rem;text-align:right;"
      "border-bottom:1px solid #8884}th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}"
      "figure{margin:1.5rem 0;overflow-x:auto}figcaption{max-width:44rem;opacity:.8}code{font-size:.92em}h2{margin-top:2.2rem}"
      "</style></head><body>\n<h1>" + escape_markup(title) + "</h1>\n";
  if (!documents.models.empty()) {
    page += "<h2>What was made</h2>\n<table><tr><th>model</th><th>recipe</th><th>bytes</th><th>of base</th><th>active bytes "
            "per token</th><th>KL mean (nats)</th><th>top-1 agreement</th><th>perplexity</th><th>decoded tokens/s</th></tr>\n";
    double base_bytes = std::numeric_limits<double>::quiet_NaN();
    for (auto const& m : documents.models) {
      double const in = number_at(m.compress, "bytes_in");
      if (m.name == "base") base_bytes = detail::model_bytes(m);
      if (!std::isfinite(base_bytes) && std::isfinite(in)) base_bytes = in;
    }
    for (auto const& m : documents.models) {
      double const bytes = detail::model_bytes(m);
      std::string const recipe =
          m.compress.is_object() ? m.compress.value("recipe", std::string()) : std::string(m.name == "base" ? "original" : "");
      page += "<tr><td>" + escape_markup(m.name) + "</td><td><code>" + escape_markup(recipe) + "</code></td><td>" +
              (std::isfinite(bytes) ? short_number(bytes / 1e6, 4) + " MB" : std::string("-")) + "</td><td>" +
              (std::isfinite(bytes / base_bytes) ? short_number(100 * bytes / base_bytes, 3) + " %" : std::string("-")) +
              "</td><td>" +
              (std::isfinite(detail::model_active_bytes(m)) ? short_number(detail::model_active_bytes(m) / 1e6, 4) + " MB"
                                                            : std::string("-")) +
              "</td>" + table_cell(number_at(m.evaluation, "kl_mean")) + table_cell(number_at(m.evaluation, "top1_agreement")) +
              table_cell(number_at(m.evaluation, "perplexity"), 5) + table_cell(number_at(m.speed, "decode_tps"), 3) +
              "</tr>\n";
    }
    page += "</table>\n<p>KL is KL(base || model) per scored token; top-1 agreement is the share of tokens where both models rank the "
            "same next token first. Perplexity is of this page's text and says little across texts.</p>\n";
    auto const plotted = plotted_models(documents);
    if (plotted.size() > 1)
      page += "<figure>" + svg_of(plotted, "Size against damage") +
              "<figcaption>Left and low is better. The vertical scale is a square root.</figcaption></figure>\n";
  }
  if (!documents.statistics.is_null()) {
    ordered_json const* layer_drop = nullptr;
    ordered_json const* expert_drop = nullptr;
    for (auto const& m : documents.models) {
      if (layer_drop == nullptr && !detail::dropped_layers(m.compress).empty()) layer_drop = &m.compress;
      std::string const recipe = m.compress.is_object() ? m.compress.value("recipe", std::string()) : std::string();
      if (expert_drop == nullptr && recipe.find("expert_drop") != std::string::npos) expert_drop = &m.compress;
    }
    page += "<h2>What the layers do</h2>\n<p>Measured on " + documents.statistics.at("tokens").dump() +
            " tokens. A part whose output points where its input pointed changes the residual stream little: Layer Drop takes the "
            "MoE parts nearest to 1, Block Drop whole layers.</p>\n<figure>" +
            svg_of(similarity_map(documents.statistics, layer_drop != nullptr ? *layer_drop : ordered_json(nullptr))) + "</figure>\n";
    page += "<h2>What the experts do</h2>\n<p>Every expert got at least " + documents.statistics.at("coverage").dump() +
            " tokens.</p>\n";
    for (std::string const criterion : {"reap_residual", "frequency"})
      page += "<figure>" +
              svg_of(importance_map(documents.statistics, criterion, expert_drop != nullptr ? *expert_drop : ordered_json(nullptr))) +
              "</figure>\n";
    page += "<p><code>reap_residual</code> is the mean of gate weight times output norm over the tokens that chose the expert, divided by "
            "the layer's mean norm of the stream that it joins, so that layers can be compared. <code>frequency</code> is the share of "
            "tokens that chose it.</p>\n";
  }
  for (auto const& [name, search] : documents.searches) {
    page += "<h2>Search " + escape_markup(name) + "</h2>\n" + search_section(search);
  }
  bool stories = false;
  for (auto const& m : documents.models) {
    ordered_json const* const steps = find_field(m.compress, "steps");
    if (steps == nullptr || !steps->is_array() || steps->empty()) continue;
    if (!std::exchange(stories, true)) page += "<h2>What went, and why</h2>\n";
    page += "<h3>" + escape_markup(m.name) + "</h3>\n<ul>\n";
    for (ordered_json const& step : *steps) page += detail::step_story(step);
    page += "</ul>\n";
    if (ordered_json const* const notes = find_field(m.compress, "notes"); notes != nullptr && notes->is_array())
      for (ordered_json const& note : *notes)
        if (note.is_string()) page += "<p>" + escape_markup(note.get<std::string>()) + "</p>\n";
  }
  return page + "</body></html>\n";
}

}  // namespace detail

/// The page. Deterministic: no time, no path. Throws `input_error` when a document is not as the commands write it.
[[nodiscard]] inline std::string report_html(report_documents const& documents, std::string const& title) {
  try {
    return detail::report_page(documents, title);
  } catch (ordered_json::exception const& e) {
    throw input_error("report", std::string("expected documents as the commands write them, found another shape: ") + e.what());
  }
}

}  // namespace v0
}  // namespace slimtrim
