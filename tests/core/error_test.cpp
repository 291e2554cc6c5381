#include <slimtrim/core/error.hpp>
#include <doctest/doctest.h>

#include <string>
#include <type_traits>

namespace core_error_test {

using namespace slimtrim;

namespace {

template <class Error, class... Arguments>
fault kind_of(Arguments... arguments) {
  try {
    throw Error(arguments...);
  } catch (error const& caught) {
    return caught.kind();
  }
}

}  // namespace

static_assert(std::is_base_of_v<std::runtime_error, error>);

TEST_CASE("every exception carries its fault and is caught as error") {
  CHECK(kind_of<error>("x") == fault::caller);
  CHECK(kind_of<usage_error>("x") == fault::usage);
  CHECK(kind_of<input_error>("x") == fault::input);
  CHECK(kind_of<system_failure>("x") == fault::system);
  CHECK(kind_of<numeric_error>("x") == fault::numerical);
  CHECK(kind_of<interrupted>() == fault::interrupted);
}

TEST_CASE("an input error names the place before the complaint") {
  CHECK(std::string(input_error("a.safetensors", "truncated").what()) == "a.safetensors: truncated");
}

TEST_CASE("expects throws only when the condition fails") {
  CHECK_NOTHROW(expects(true, "f", "never"));
  CHECK_THROWS_WITH_AS(expects(false, "gptq", "damp is negative"), "gptq: damp is negative", error);
}

TEST_CASE("expects_equal shows both values") {
  CHECK_NOTHROW(expects_equal(3, 3, "f", "rows"));
  CHECK_THROWS_WITH_AS(expects_equal(-2, 3, "f", "rows"), "f: rows: expected 3, found -2", error);
}

}  // namespace core_error_test
