#include <slimtrim/core/error.hpp>
#include <slimtrim/core/progress.hpp>
#include <doctest/doctest.h>

#include <string>

namespace core_progress_test {

using namespace slimtrim;

TEST_CASE("a report reaches the callback as it was made") {
  std::string heard;
  report_progress(
      [&](progress const& p) {
        heard = std::string(p.stage) + " " + std::to_string(p.done) + "/" + std::to_string(p.total) + " " + std::string(p.unit);
      },
      "calibrate", 3, 8, "tokens");
  CHECK(heard == "calibrate 3/8 tokens");
}

TEST_CASE("nobody has to listen") { CHECK_NOTHROW(report_progress({}, "calibrate", 0, 0)); }

TEST_CASE("a listener may stop the call") {
  CHECK_THROWS_AS(report_progress([](progress const&) { throw interrupted(); }, "plan", 0, 1), interrupted);
}

}  // namespace core_progress_test
