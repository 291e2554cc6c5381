// Every table of kernels that this machine can run, from 128-bit vectors emulated in plain C++ to AVX-512 with VNNI,
// each against double sums. Highway's own switch compiles those below the compiler's flags too.
#define HWY_COMPILE_ALL_ATTAINABLE
// target/kernels_test.cpp has that one, with 16 rows a panel.
#define HWY_DISABLED_TARGETS HWY_SSSE3
#include <slimtrim/simd/runtime_kernels.hpp>

#include "kernel_suite.hpp"

#include <cstring>
#include <set>
#include <string>

using namespace simd_suite;

namespace {

// Lets Highway believe that the machine has one instruction set only; undone at the end of the scope.
struct only_target {
  explicit only_target(std::int64_t target) { set(target); }
  only_target(only_target const&) = delete;
  only_target& operator=(only_target const&) = delete;
  ~only_target() { set(0); }
  static void set(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

}  // namespace

TEST_CASE("every table of kernels that this machine can run equals double sums") {
  std::set<std::string> names;
  index_t cases = 0;
  for (std::int64_t const target : hwy::SupportedAndGeneratedTargets()) {
    only_target const one(target);
    auto const& kernels = simd::runtime_kernels();
    std::string const name = kernels.name;
    CAPTURE(name);
    CHECK(names.insert(name).second);
    auto const found = run_cases(kernels, 8, 2600);
    MESSAGE(name, ": ", found.cases, " weights, ", found.shapes, " products, NMSE ",
            found.error / found.norm);
    cases += found.cases;
  }
  MESSAGE(cases, " weights in all");
  CHECK(names.size() >= 2);
}

TEST_CASE("the kernels chosen for this machine are the best of its tables") {
  auto const& kernels = simd::runtime_kernels();
  auto const targets = hwy::SupportedAndGeneratedTargets();
  std::int64_t best = targets.front();
  for (std::int64_t const target : targets) best = std::min(best, target);  // Highway numbers the better ones lower
  CHECK(std::string(kernels.name) == hwy::TargetName(best));
  CHECK(&kernels == &simd::runtime_kernels());
}
