// Reads the #include lines below include/slimtrim and holds them against the table of floors in docs/architecture.md.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace static_layering_test {

namespace {

namespace fs = std::filesystem;

struct include_line {
  std::string file;    // relative to include/, e.g. slimtrim/core/index.hpp
  std::string target;  // between the brackets or quotes
  bool bracketed;
};

// Several folders may share a floor; they never include each other. The fused members of backends stand beside the
// floors: they may use floors 0 to 7, and nothing may use them. cuda/model mirrors floor 9: it may use what that floor
// may, that floor itself and cuda; cuda may not use it.
std::map<std::string, int> const floors{{"core", 0},       {"tensor", 1},   {"backend", 2},    {"linalg", 3},
                                        {"similarity", 4}, {"router", 4},   {"statistics", 5}, {"importance", 6},
                                        {"slim", 6},       {"recovery", 6}, {"trim", 7},       {"io", 8},
                                        {"model", 9},      {"pipeline", 10}};
std::map<std::string, int> const fused_folders{{"simd", 7}, {"cuda", 7}, {"cuda/model", 9}};

std::string folder_of(std::string const& path) {
  if (path.rfind("slimtrim/cuda/model/", 0) == 0) return "cuda/model";
  auto const first = path.find('/');
  auto const second = path.find('/', first + 1);
  return first == std::string::npos || second == std::string::npos ? "" : path.substr(first + 1, second - first - 1);
}

bool is_ours(std::string const& target) { return target.rfind("slimtrim/", 0) == 0; }

// What is wrong with one line, or nothing.
std::string complaint(include_line const& line) {
  if (!line.bracketed) return "is quoted; write <slimtrim/folder/file.hpp>";
  std::string const from = folder_of(line.file);
  bool const is_fused = fused_folders.count(from) != 0;
  if (!is_ours(line.target)) {
    bool const third_party = line.target.find('/') != std::string::npos || line.target.find('.') != std::string::npos;
    bool const adaptor = line.file == "slimtrim/backend/eigen.hpp" || line.file == "slimtrim/backend/xtensor.hpp" ||
                         line.file.rfind("slimtrim/backend/detail/", 0) == 0;
    if (!is_fused && !adaptor && third_party && floors.count(from) != 0 && floors.at(from) < 8)
      return "brings a third-party or system header below floor 8";
    return "";
  }
  std::string const to = folder_of(line.target);
  bool const device_only = line.target.size() > 4 && line.target.substr(line.target.size() - 4) == ".cuh";
  if (device_only && line.file.substr(line.file.size() - 4) == ".hpp") return "is a .cuh in a .hpp";
  if (to == from || (from == "cuda/model" && to == "cuda")) return "";
  if (fused_folders.count(to) != 0) return "takes a fused member of a backend; only its own folder may";
  if (floors.count(to) == 0 || (!is_fused && floors.count(from) == 0)) return "is in a folder without a floor";
  if (is_fused)
    return floors.at(to) <= fused_folders.at(from) ? "" : "climbs above floor " + std::to_string(fused_folders.at(from));
  if (from == "io" && floors.at(to) > 1) return "is above floor 1, and io holds named bytes only";
  return floors.at(to) < floors.at(from) ? "" : "climbs, or crosses its floor";
}

std::vector<std::string> headers() {
  fs::path const root = fs::path(SLIMTRIM_SOURCE_DIR) / "include";
  std::vector<std::string> found;
  for (auto const& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file()) found.push_back(fs::relative(entry.path(), root).generic_string());
  std::sort(found.begin(), found.end());
  return found;
}

std::string text_of(std::string const& header) {
  std::ifstream in(fs::path(SLIMTRIM_SOURCE_DIR) / "include" / header);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The include lines of a text. `# include`, spaces and comments behind the line are understood; a macro
// (`#include HWY_TARGET_INCLUDE`) has neither bracket nor quote and is left alone.
std::vector<include_line> includes_of(std::string const& file, std::string const& text) {
  std::vector<include_line> found;
  std::size_t begin = 0;
  while (begin < text.size()) {
    auto const end = std::min(text.find('\n', begin), text.size());
    std::string const line = text.substr(begin, end - begin);
    begin = end + 1;
    auto at = line.find_first_not_of(" \t");
    if (at == std::string::npos || line[at] != '#') continue;
    at = line.find_first_not_of(" \t", at + 1);
    if (at == std::string::npos || line.compare(at, 7, "include") != 0) continue;
    auto const open = line.find_first_of("<\"", at);
    if (open == std::string::npos) continue;
    auto const close = line.find(line[open] == '<' ? '>' : '"', open + 1);
    found.push_back({file, line.substr(open + 1, close - open - 1), line[open] == '<'});
  }
  return found;
}

}  // namespace

TEST_CASE("no include climbs, crosses a floor, is quoted, or takes what its folder must not have") {
  auto const all = headers();
  REQUIRE(all.size() > 20);
  for (auto const& header : all)
    for (auto const& line : includes_of(header, text_of(header))) {
      std::string const wrong = complaint(line);
      CHECK_MESSAGE(wrong.empty(), header << ": " << line.target << " " << wrong);
    }
}

TEST_CASE("every header of ours that is included exists") {
  auto const all = headers();
  std::set<std::string> const existing(all.begin(), all.end());
  for (auto const& header : all)
    for (auto const& line : includes_of(header, text_of(header)))
      if (is_ours(line.target))
        CHECK_MESSAGE(existing.count(line.target) == 1, header << ": there is no " << line.target);
}

TEST_CASE("headers guard themselves, look at __CUDACC__ in one place, and do not print or read the environment") {
  for (auto const& header : headers()) {
    std::string const text = text_of(header);
    // Kernels compiled once for each instruction set are included again on purpose.
    bool const repeated = header.find("/target/") != std::string::npos;
    CHECK_MESSAGE((repeated || text.find("#pragma once") != std::string::npos), header << " has no #pragma once");
    for (char const* forbidden : {"defined(__CUDACC__)", "ifdef __CUDACC__"})
      CHECK_MESSAGE((header == "slimtrim/core/config.hpp" || text.find(forbidden) == std::string::npos),
                    header << " looks at __CUDACC__");
    for (char const* forbidden :
         {"<iostream>", "std::cout", "std::cerr", "getenv(", "std::exit(", "using namespace std"})
      CHECK_MESSAGE(text.find(forbidden) == std::string::npos, header << " contains " << forbidden);
  }
}

TEST_CASE("the rules refuse what they should") {
  auto const line = [](char const* file, char const* target) { return complaint({file, target, true}); };
  CHECK(line("slimtrim/linalg/product.hpp", "slimtrim/backend/tensor_backend.hpp").empty());
  CHECK(line("slimtrim/slim/quantize/rtn.hpp", "slimtrim/slim/sparse/mask.hpp").empty());
  CHECK(line("slimtrim/backend/eigen.hpp", "Eigen/Core").empty());
  CHECK(line("slimtrim/simd/gemm.hpp", "slimtrim/linalg/product.hpp").empty());
  CHECK(line("slimtrim/io/json.hpp", "nlohmann/json.hpp").empty());
  CHECK_FALSE(line("slimtrim/core/index.hpp", "slimtrim/tensor/buffer.hpp").empty());
  CHECK_FALSE(line("slimtrim/similarity/cosine.hpp", "slimtrim/router/softmax.hpp").empty());
  CHECK_FALSE(line("slimtrim/slim/rtn.hpp", "slimtrim/importance/reap.hpp").empty());
  CHECK_FALSE(line("slimtrim/linalg/product.hpp", "slimtrim/simd/gemm.hpp").empty());
  CHECK_FALSE(line("slimtrim/simd/gemm.hpp", "slimtrim/cuda/gemm.hpp").empty());
  CHECK_FALSE(line("slimtrim/simd/gemm.hpp", "slimtrim/model/forward.hpp").empty());
  CHECK_FALSE(line("slimtrim/cuda/gemm.hpp", "slimtrim/cuda/gemm.cuh").empty());
  CHECK(line("slimtrim/cuda/model/model.cuh", "slimtrim/model/model_config.hpp").empty());
  CHECK(line("slimtrim/cuda/model/model.cuh", "slimtrim/cuda/gemm.cuh").empty());
  CHECK_FALSE(line("slimtrim/cuda/gemm.cuh", "slimtrim/model/model_config.hpp").empty());
  CHECK_FALSE(line("slimtrim/cuda/gemm.cuh", "slimtrim/cuda/model/model.cuh").empty());
  CHECK_FALSE(line("slimtrim/cuda/model/model.cuh", "slimtrim/pipeline/calibrate.hpp").empty());
  CHECK_FALSE(line("slimtrim/model/model.hpp", "slimtrim/cuda/model/model.hpp").empty());
  CHECK_FALSE(line("slimtrim/pipeline/calibrate.hpp", "slimtrim/cuda/model/model.hpp").empty());
  CHECK_FALSE(line("slimtrim/trim/plan.hpp", "nlohmann/json.hpp").empty());
  CHECK_FALSE(line("slimtrim/linalg/product.hpp", "Eigen/Core").empty());
  CHECK_FALSE(line("slimtrim/io/safetensors.hpp", "slimtrim/linalg/product.hpp").empty());
  CHECK_FALSE(line("slimtrim/attic/old.hpp", "slimtrim/core/index.hpp").empty());
  CHECK_FALSE(complaint({"slimtrim/io/json.hpp", "json_fields.hpp", false}).empty());
  auto const parsed =
      includes_of("f", "  #  include <a/b.hpp> // why\n#include \"c.hpp\"\n// #include <d>\n#include MACRO\n");
  REQUIRE(parsed.size() == 2);
  CHECK(parsed[0].target == "a/b.hpp");
  CHECK_FALSE(parsed[1].bracketed);
}

}  // namespace static_layering_test
