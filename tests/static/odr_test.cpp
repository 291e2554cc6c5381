// Two translation units that include everything of floors 0 to 7 (generated: odr_unit_a.cpp, odr_unit_b.cpp) are
// linked into this program. A function that is not inline would be defined twice and the link would fail; here the
// one definition of an inline function is also seen to be one.
#include <doctest/doctest.h>

void (*address_seen_by_unit_a())();
void (*address_seen_by_unit_b())();

namespace static_odr_test {

TEST_CASE("an inline function has one address in all translation units") {
  CHECK((address_seen_by_unit_a() == address_seen_by_unit_b()));
}

}  // namespace static_odr_test
