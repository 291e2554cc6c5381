// The report page: which files are what, the table's values, crosses where something went, nothing executable.
#include <slimtrim/pipeline/report.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <string>

namespace pipeline_report_test {

using namespace slimtrim;

namespace {

std::size_t count(std::string const& text, std::string const& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

ordered_json const drop_json{{"command", "compress"},
                             {"recipe", "layer_drop:1+expert_drop:2/3"},
                             {"bytes_in", 20000000},
                             {"bytes_out", 5000000},
                             {"steps",
                              {{{"step", "layer_drop:1"}, {"criterion", "cosine"}, {"dropped", {1}}, {"order", {{{"layer", 1}, {"score", 0.9876}}}}},
                               {{"step", "expert_drop:2/3"},
                                {"criterion", "reap"},
                                {"layers", {{{"layer", 0}, {"experts", {0, 1, 2}}, {"scores", {1, 0.5, 2}}, {"kept", {0, 2}}}}}},
                               {{"step", "rtn:4"}, {"modules", 12}}}},
                             {"notes", {"only <slimtrim> loads it"}}};
ordered_json const statistics_json{
    {"command", "stats show"},
    {"tokens", 4096},
    {"coverage", 17},
    {"layers",
     {{{"similarity", {{"moe", 0.5}, {"attention", 0.75}, {"block", 0.25}}}, {"importance", {{"frequency", {0.5, 0.25, 1.25}}, {"reap_residual", {3, nullptr, 1}}}}},
      {{"similarity", {{"moe", 0.9876}, {"attention", 0.8}, {"block", 0.7}}}, {"importance", {{"frequency", {1, 1, 0}}}}}}}};

void fill(temporary_folder const& folder) {
  folder.write("drop<1>.compress.json", drop_json.dump());
  folder.write("drop<1>.eval.json", R"({"command": "eval", "perplexity": 26.5, "kl_mean": 0.0625, "top1_agreement": 0.875, "tokens_per_second": 99.5})");
  folder.write("drop<1>.bench.json", R"({"command": "bench", "prefill_tps": 5000, "decode_tps": 1234.5})");
  folder.write("base.inspect.json", R"({"command": "inspect", "layers_detail": [], "bytes": 20000000, "active_bytes": 8000000})");
  folder.write("base.eval.json", R"({"command": "eval", "perplexity": 24.5})");
  folder.write("calibration.stats.json", statistics_json.dump());
  folder.write("hunt.search.json", R"({"command": "plan", "front": [{"recipe": "rtn:4", "bytes": 100, "kl": 0.5},
                                                  {"recipe": "long", "steps": "gptq:4 on <all>", "bytes": 200, "active_bytes": 50, "kl": 0.25, "predicted": 0.125}]})");
  folder.write("list.json", "[1, 2]");
  // Of commands that say nothing to the page, and of others than slimtrim, whatever keys they have.
  folder.write("base.convert.json", R"({"command": "convert", "bytes_in": 1, "bytes_out": 2})");
  folder.write("base.plan.json", R"({"command": "plan", "bytes_in": 1})");
  folder.write("base.other.json", R"({"bytes_in": 1, "perplexity": 2, "decode_tps": 3, "layers_detail": [], "coverage": 4, "layers": []})");
  folder.write("base.odd.json", R"({"command": ["compress"]})");
  folder.write("notes.txt", "not JSON");
}

}  // namespace

TEST_CASE("a name may hold points; the word before .json is none of it") {
  CHECK(report_name("a/drop.compress.json") == "drop");
  CHECK(report_name("search-0.22.eval.json") == "search-0.22");
  CHECK(report_name("search-0.22.json") == "search-0.22");
  CHECK(report_name("list.json") == "list");
  CHECK(report_name("v1.2-b.json") == "v1.2-b");
}

TEST_CASE("files are told apart by the command that made them") {
  temporary_folder const folder;
  fill(folder);
  report_documents const documents = read_report_folder(folder.path());
  REQUIRE(documents.models.size() == 2);
  CHECK(documents.models[0].name == "base");
  CHECK(documents.models[1].name == "drop<1>");
  CHECK(documents.models[1].compress == drop_json);
  CHECK(documents.models[1].evaluation["perplexity"] == 26.5);
  CHECK(documents.models[0].inspection["bytes"] == 20000000);
  CHECK(documents.statistics == statistics_json);
  REQUIRE(documents.searches.size() == 1);
  CHECK(documents.searches[0].first == "hunt");
  auto const plotted = plotted_models(documents);
  REQUIRE(plotted.size() == 2);
  CHECK(plotted[0].bytes == 2e7);
  CHECK(plotted[0].damage == 0);
  CHECK(plotted[1].damage == 0.0625);
}

TEST_CASE("a folder without anything, and one that is not there") {
  temporary_folder const folder;
  CHECK_THROWS_AS(static_cast<void>(read_report_folder(folder.path())), input_error);
  folder.write("x.json", "{}");
  CHECK_THROWS_AS(static_cast<void>(read_report_folder(folder.path())), input_error);
  CHECK_THROWS_AS(static_cast<void>(read_report_folder(folder.path() / "none")), input_error);
  folder.write("y.json", "{\"bytes_in\": ");
  try {
    static_cast<void>(read_report_folder(folder.path()));
    FAIL("accepted");
  } catch (input_error const& e) {
    CHECK(std::string(e.what()).find("y.json") != std::string::npos);
  }
}

TEST_CASE("one document of a kind about a model, and one of statistics") {
  for (char const* const again : {"drop<1>.again.json", "other.stats.json"}) {
    CAPTURE(again);
    temporary_folder const folder;
    fill(folder);
    folder.write(again, again[0] == 'd' ? drop_json.dump() : statistics_json.dump());
    try {
      static_cast<void>(read_report_folder(folder.path()));
      FAIL("accepted");
    } catch (input_error const& e) {
      CHECK(std::string(e.what()).find("expected one document of ") != std::string::npos);
    }
  }
}

TEST_CASE("the page: values, story, escaping, no scripts, the same twice") {
  temporary_folder const folder;
  fill(folder);
  report_documents const documents = read_report_folder(folder.path());
  std::string const page = report_html(documents, "A & B");
  CHECK(count(page, "A &amp; B") == 2);
  CHECK(count(page, "drop<1>") == 0);
  CHECK(count(page, "<td>drop&lt;1&gt;</td>") == 1);
  CHECK(count(page, "<td>5 MB</td>") == 1);
  CHECK(count(page, "<td>25 %</td>") == 1);
  CHECK(count(page, "<td>100 %</td>") == 1);
  CHECK(count(page, "<td>0.0625</td><td>0.875</td><td>26.5</td>") == 1);
  CHECK(count(page, "<td>24.5</td>") == 1);
  CHECK(count(page, "layer 1 (cosine 0.9876)") == 1);
  CHECK(count(page, "1 of 3 experts went by lowest reap (layer 0: 1)") == 1);
  CHECK(count(page, "12 matrices") == 1);
  CHECK(count(page, "only &lt;slimtrim&gt; loads it") == 1);
  CHECK(count(page, "<script") == 0);
  CHECK(count(page, "http://") == count(page, "http://www.w3.org/2000/svg"));
  CHECK(count(page, "<svg") == 5);  // size against damage, similarities, two criteria, the search
  CHECK(count(page, "<td>1</td><td><code>rtn:4</code></td>") == 1);
  CHECK(count(page, "<td>2</td><td><code>gptq:4 on &lt;all&gt;</code></td>") == 1);
  CHECK(count(page, "<td>0.125</td>") == 1);
  CHECK(page.find("nan") == std::string::npos);
  CHECK(report_html(read_report_folder(folder.path()), "A & B") == page);
}

TEST_CASE("marks: which cells are crossed out") {
  heat_map const similar = similarity_map(statistics_json, drop_json);
  CHECK(similar.values[1][0] == 0.9876);
  CHECK(similar.marked == std::vector<std::vector<bool>>{{false, false, false}, {true, false, false}});
  CHECK(similarity_map(statistics_json).mark_meaning.empty());
  ordered_json block = drop_json;
  block["steps"] = {{{"step", "block_drop:1"}, {"dropped", {0}}}, {{"step", "attention_drop:1"}, {"dropped", {1}}}};
  CHECK(similarity_map(statistics_json, block).marked == std::vector<std::vector<bool>>{{false, false, true}, {false, true, false}});
  heat_map const frequency = importance_map(statistics_json, "frequency", drop_json);
  CHECK(frequency.columns.size() == 3);
  CHECK(frequency.marked == std::vector<std::vector<bool>>{{false, true, false}, {false, false, false}});
  CHECK(frequency.mark_meaning == "crossed out: dropped by layer_drop:1+expert_drop:2/3");
  heat_map const reap = importance_map(statistics_json, "reap_residual");
  CHECK(std::isnan(reap.values[0][1]));
  CHECK(reap.values[1].empty());
  CHECK(reap.mark_meaning.empty());
}

TEST_CASE("documents that no command writes are refused") {
  for (ordered_json const& steps : {ordered_json{{{"step", 1.5}}}, ordered_json{7}, ordered_json{{{"step", "a"}, {"order", {3}}}}}) {
    report_documents documents;
    report_documents::model m;
    m.name = "odd";
    m.compress = {{"bytes_in", 3}, {"steps", steps}};
    documents.models.push_back(m);
    CHECK_THROWS_AS(static_cast<void>(report_html(documents, "")), input_error);
  }
}

}  // namespace pipeline_report_test
