// The table of all rows that were measured, as Markdown and JSON. Needs no device.
#pragma once

#include "row_file.hpp"
#include "rows.hpp"

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace paper_table {

namespace detail {

[[nodiscard]] inline std::string number(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

[[nodiscard]] inline std::string ratio(double baseline, double value) {
  return baseline > 0 && value > 0 ? number(baseline / value, 2) + "x" : "-";
}

}  // namespace detail

/// Reads OUT/<row>.row, writes OUT/table.md and OUT/results.json and returns the Markdown. Speed-ups are of the time of
/// a decoded token at one text, against our own fused bfloat16 and against each eager baseline that was measured;
/// memory is at one text.
[[nodiscard]] inline std::string write_table(std::string const& out) {
  std::string text, json = "{\"rows\": [\n";
  char const* between = "";
  for (bool const deepseek : {false, true}) {
    std::string const family = deepseek ? "deepseek" : "mixtral";
    row_file const base = row_file::load(out + "/" + family + "-base.row"),
                   eager = row_file::load(out + "/" + family + "-eager.row"),
                   transformers = row_file::load(out + "/" + family + "-transformers.row");
    text += std::string(deepseek ? "DeepSeek-MoE-16B" : "Mixtral-8x7B") + " shape, random weights, " +
            (base.empty() ? eager : base).text("device") + "\n\n";
    text +=
        "| model | decode ms, 1 / 8 / 32 texts | prefill ms, 2048 | memory GiB | of read bandwidth | vs fused bf16 | "
        "vs eager cuBLAS | vs transformers | paper |\n"
        "|---|---|---|---|---|---|---|---|---|\n";
    std::string slabs, early;
    for (table_row const& row : all_rows()) {
      if (row.deepseek != deepseek) continue;
      row_file const seen = row_file::load(out + "/" + row.name + ".row");
      std::string line = "| " + row.label + " | ";
      if (seen.empty() || !seen.text("not_measured").empty()) {
        text += line + (seen.empty() ? "not measured" : "not measured: " + seen.text("not_measured")) +
                " | | | | | | | |\n";
        continue;
      }
      json += std::string(between) + "{\"row\": \"" + row.name + "\", \"figures\": " + seen.json() + "}";
      between = ",\n";
      double const one = seen.get("decode_seconds_1");
      auto const milliseconds = [&](char const* name) { return detail::number(1e3 * seen.get(name), 3); };
      bool const has_read = seen.get("read_bandwidth") > 0 && seen.get("active_bytes") > 0;
      line += milliseconds("decode_seconds_1") + " / " + milliseconds("decode_seconds_8") + " / " +
              milliseconds("decode_seconds_32") + " | " + milliseconds("prefill_seconds") + " | " +
              detail::number(seen.get("memory_bytes_1") / (1024.0 * 1024 * 1024), 2) + " | " +
              (has_read ? detail::number(seen.get("active_bytes") / one / seen.get("read_bandwidth"), 2)
                        : std::string("-")) +
              " | " + detail::ratio(base.get("decode_seconds_1"), one) + " | " +
              detail::ratio(eager.get("decode_seconds_1"), one) + " | " +
              detail::ratio(transformers.get("decode_seconds_1"), one) + " | ";
      if (row.paper_speedup > 0)
        line += (row.paper_speedup > 1 ? detail::number(row.paper_speedup, 2) + "x, " : std::string()) +
                detail::number(row.paper_memory, 1) + " GiB";
      text += line + " |\n";
      if (seen.get("early_decode_seconds_1") > 0)
        early += (early.empty() ? "Kernels that begin early (milliseconds a step, 1 / 8 texts): " : ", ") + row.label + " " +
                 milliseconds("early_decode_seconds_1") + " / " + milliseconds("early_decode_seconds_8");
      if (seen.get("layers_in_memory") < seen.get("layers") && seen.get("layers") > 0)
        slabs += "- " + row.label + ": a slab of " + detail::number(seen.get("layers_in_memory"), 0) + " of " +
                 detail::number(seen.get("layers"), 0) +
                 " layers was in memory and passed several times; memory is what all layers would take.\n";
    }
    text += "\n" + slabs + (slabs.empty() ? "" : "\n") + early + (early.empty() ? "" : ".\n\n");
  }
  json += "\n]}\n";
  for (auto const& [name, content] : {std::pair<std::string, std::string>{"table.md", text}, {"results.json", json}}) {
    std::ofstream file(out + "/" + name);
    file << content;
    if (!file.flush()) throw system_failure(out + "/" + name + ": cannot be written");
  }
  return text;
}

}  // namespace paper_table
