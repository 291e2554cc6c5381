// The search for AWQ's channel scales against its definition: every candidate's weights rounded by plain loops, and
// every token of the calibration pushed through them.
#include "cuda/support.hpp"

#include <slimtrim/cuda/awq_search.cuh>
#include <doctest/doctest.h>

#include "slim/support.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace cuda_awq_search_test {

using namespace slimtrim;
using slimtrim_test::gram_of;
using slimtrim_test::random_input;
using slimtrim_test::random_weight;

namespace {

device_matrix<float const> send(cuda_tests::device_memory& device, matrix<float> const& m) {
  return device_matrix<float const>(device.keep<float>(m.view().data, m.view().size()), m.extent(0), m.extent(1));
}

double real(float x) { return static_cast<double>(x); }

struct member {
  matrix<float> weight, input, hessian;
  member(index_t rows, index_t c, std::uint64_t seed)
      : weight(random_weight(rows, c, seed)), input(random_input(2 * c, c, seed + 50)), hessian(gram_of(input)) {}
  member(member const& other)
      : weight(other.weight.clone()), input(other.input.clone()), hessian(other.hessian.clone()) {}
};

struct error_and_doubt {
  double error = 0, doubt = 0;
};

// sum over tokens of |dW x|² with 4-bit codes and zero points, and what float may take from it: sums of 2 c products
// |d| |H| |d|, where |H_jk| <= sqrt(H_jj H_kk), and d itself, a difference of numbers as large as w. With zero points
// no element stands on a tie by construction, as the largest of a symmetric group does.
error_and_doubt plain_error(member const& m, std::vector<double> const& s, index_t group) {
  error_and_doubt total;
  index_t const c = m.weight.extent(1);
  for (index_t i = 0; i < m.weight.extent(0); ++i) {
    std::vector<double> d;
    double size = 0, reach = 0;
    for (index_t j = 0; j < c; ++j) {
      double low = 0, high = 0;
      for (index_t k = j / group * group; k < std::min(c, j / group * group + group); ++k) {
        double const scaled = real(m.weight(i, k)) * s[static_cast<std::size_t>(k)];
        low = std::min(low, scaled);
        high = std::max(high, scaled);
      }
      double const step = std::max((high - low) / 15, 1e-30), at = s[static_cast<std::size_t>(j)],
                   w = real(m.weight(i, j)), zero = std::nearbyint(-low / step);
      double const code = std::clamp(std::nearbyint(w * at / step + zero), 0.0, 15.0) - zero;
      d.push_back(code * step / at - w);
      double const root = std::sqrt(std::max(real(m.hessian(j, j)), 0.0));
      size += std::abs(d.back()) * root;
      reach += (std::abs(w) + std::abs(d.back())) * root;
    }
    for (index_t t = 0; t < m.input.extent(0); ++t) {
      double y = 0;
      for (index_t j = 0; j < c; ++j) y += d[static_cast<std::size_t>(j)] * real(m.input(t, j));
      total.error += y * y;
    }
    total.doubt += static_cast<double>(2 * c + 8) * 0x1p-24 * size * size + 0x1p-21 * size * reach;
  }
  return total;
}

// s = a^r / m^(1-r) by logarithms, halfway between its extremes at one. The 1e-4 keeps a channel of zeros finite.
std::vector<double> plain_candidate(std::vector<member> const& members, index_t group, double ratio,
                                    bool power_of_two) {
  index_t const c = members.front().weight.extent(1);
  std::vector<double> logarithm;
  double lowest = 1e300, highest = -1e300, rows = 0, mean = 0;
  for (auto const& m : members) rows += static_cast<double>(m.weight.extent(0));
  for (auto const& m : members)
    for (index_t j = 0; j < c; ++j) mean += real(m.hessian(j, j)) / static_cast<double>(c);
  for (index_t j = 0; j < c; ++j) {
    double activity = 0, magnitude = 0;
    for (auto const& m : members) {
      activity += real(m.hessian(j, j));
      for (index_t i = 0; i < m.weight.extent(0); ++i) {
        double largest = 0;
        for (index_t k = j / group * group; k < std::min(c, j / group * group + group); ++k)
          largest = std::max(largest, std::abs(real(m.weight(i, k))));
        magnitude += largest > 0 ? std::abs(real(m.weight(i, j))) / largest / rows : 0.0;
      }
    }
    if (!(activity > 0)) {
      logarithm.push_back(std::nan(""));
      continue;
    }
    logarithm.push_back(0.5 * ratio * std::log(activity / mean) - std::log(std::pow(magnitude, 1 - ratio) + 1e-4));
    lowest = std::min(lowest, logarithm.back());
    highest = std::max(highest, logarithm.back());
  }
  std::vector<double> s;
  for (double const l : logarithm) {
    double const centred = (l - 0.5 * (lowest + highest)) / std::log(2.0);
    s.push_back(l != l ? 1.0 : std::exp2(power_of_two ? std::nearbyint(centred) : centred));
  }
  return s;
}

awq_options options_of(index_t group, int ratios, bool power_of_two = false) {
  return {.grid = {4, false},
          .groups = {group_kind::group, group},
          .scales_stored_as = scale_type::float32,
          .ratios = ratios,
          .power_of_two = power_of_two};
}

awq_scales search(cuda_tests::device_memory& device, std::vector<member> const& members, awq_options const& options) {
  std::vector<cuda::awq_member<float>> sent;
  for (auto const& m : members) sent.push_back({send(device, m.weight), send(device, m.hessian)});
  return cuda::search_awq_scales<float>(device.backend().on(), sent, options);
}

// Whether anything was better than ones.
bool check(std::vector<member> const& members, awq_options const& options) {
  cuda_tests::device_memory device;
  index_t const group = options.groups.size;
  auto const found = search(device, members, options);
  auto const error_of = [&](std::vector<double> const& s) {
    error_and_doubt sum;
    for (auto const& m : members) {
      auto const one = plain_error(m, s, group);
      sum.error += one.error;
      sum.doubt += one.doubt;
    }
    return sum;
  };
  std::vector<double> const ones(found.scales.size(), 1.0), scales(found.scales.begin(), found.scales.end());
  auto const plain = error_of(ones), best = error_of(scales);
  CHECK(std::abs(found.error_plain - plain.error) <= plain.doubt);
  CHECK(std::abs(found.error - best.error) <= best.doubt);
  CHECK(found.error <= found.error_plain);
  for (int i = 0; i < options.ratios; ++i) {
    double const ratio = static_cast<double>(i) / options.ratios;
    auto s = plain_candidate(members, group, ratio, options.power_of_two);
    if (ratio == found.ratio)  // powers and sums in double, then a float
      for (std::size_t j = 0; j < s.size(); ++j) REQUIRE(scales[j] == doctest::Approx(s[j]).epsilon(2e-7));
    // Rounded as the search rounds them, or codes on the edge would differ.
    for (double& one : s) one = real(static_cast<float>(one));
    auto const other = error_of(s);
    CHECK(found.error <= other.error + other.doubt);
  }
  return found.ratio >= 0;
}

}  // namespace

TEST_CASE("awq_search: the best of all candidates, one and two members, a shorter last group") {
  CHECK(check({member(9, 24, 1)}, options_of(8, 5)));
  CHECK(check({member(5, 40, 2), member(17, 40, 3)}, options_of(16, 7)));
  CHECK(check({member(6, 17, 4)}, options_of(5, 4, true)));
  CHECK(check({member(1, 33, 5)}, options_of(64, 3)));
}

TEST_CASE("awq_search: more rows than one panel of magnitudes and one strip of errors") {
  CHECK(check({member(2100, 6, 6)}, options_of(4, 2)));
}

TEST_CASE("awq_search: rounding errors of scaled weights are those of the grid, to the bit") {
  cuda_tests::device_memory device;
  for (bool symmetric : {true, false})
    for (index_t group : {7, 40, 200}) {
      index_t const n = 17, c = 150;
      auto const W = random_weight(n, c, 9);
      std::vector<float> s;
      for (index_t j = 0; j < c; ++j) s.push_back(0.3F + static_cast<float>(j % 7));
      cuda::scale_fit const fit{{3, symmetric}, group, scale_rule::absmax, scale_type::bfloat16, {}};
      auto const error = device.matrix<float>(n, c);
      cuda::launch(device.backend().on().stream(),
                   {dim3(cuda::blocks_for(ceil_div(n * ceil_div(c, group), 16))), 256, 0},
                   cuda::detail::scaled_rounding_errors<float>, send(device, W),
                   device_vector<float const>(device.keep<float>(s.data(), c), c), fit, error);
      auto const found = device.download<float>(error);
      for (index_t i = 0; i < n; ++i)
        for (index_t first = 0; first < c; first += group) {
          std::vector<float> scaled;
          for (index_t j = first; j < std::min(c, first + group); ++j)
            scaled.push_back(W(i, j) * s[static_cast<std::size_t>(j)]);
          auto const ends = std::minmax_element(scaled.begin(), scaled.end());
          scale_and_zero const at = fit.grid.from_range(*ends.first, *ends.second, fit.stored_as);
          for (std::size_t k = 0; k < scaled.size(); ++k) {
            auto const j = static_cast<std::size_t>(first) + k;
            float const back = fit.grid.decode(fit.grid.encode(scaled[k], at), at) / s[j];
            REQUIRE(found[static_cast<std::size_t>(i * c) + j] == back - W(i, static_cast<index_t>(j)));
          }
        }
    }
}

TEST_CASE("awq_search: channels without activity or weights keep a scale, and nothing to search leaves ones") {
  std::vector<member> members{member(6, 16, 7)};
  for (index_t i = 0; i < 6; ++i) members[0].weight(i, 5) = 0;
  for (index_t t = 0; t < members[0].input.extent(0); ++t) members[0].input(t, 11) = 0;
  members[0].hessian = gram_of(members[0].input);
  check(members, options_of(8, 4));
  {
    cuda_tests::device_memory device;
    CHECK(search(device, members, options_of(8, 4)).scales[11] == 1.0F);
  }
  members[0].hessian.fill(0.0F);
  cuda_tests::device_memory device;
  auto const idle = search(device, members, options_of(8, 4));
  CHECK(idle.scales == std::vector<float>(16, 1.0F));
  CHECK(idle.ratio == -1);
  CHECK(idle.error == 0);
  CHECK(search(device, {member(0, 16, 1)}, options_of(8, 4)).scales == std::vector<float>(16, 1.0F));
  CHECK(search(device, {}, options_of(8, 4)).scales.empty());
  // A member without rows besides one that has some changes nothing but what its tokens say about activity.
  std::vector<member> both{member(6, 16, 7), member(0, 16, 7)};
  check(both, options_of(8, 4));
}

TEST_CASE("awq_search: what does not fit together is refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const W = send(device, random_weight(4, 16, 1));
  auto const H = as_const(device.matrix<float>(16, 16)), wide = as_const(device.matrix<float>(16, 17)),
             tall = as_const(device.matrix<float>(17, 16));
  using members = std::vector<cuda::awq_member<float>>;
  auto const run = [&](members const& all, awq_options const& options = {}, std::vector<index_t> const& tied = {}) {
    static_cast<void>(cuda::search_awq_scales<float>(on, all, options, tied));
  };
  CHECK_THROWS_WITH_AS(run({{W, H}}, {.groups = {group_kind::tensor, 0}}),
                       "cuda::search_awq_scales: one scale for a whole matrix is not supported on the device", error);
  CHECK_THROWS_WITH_AS(run({{W, H}}, {}, {0, 1}), "cuda::search_awq_scales: ties of channels: expected 16, found 2",
                       error);
  CHECK_THROWS_WITH_AS(run({{W, wide}}), "cuda::search_awq_scales: columns of a Hessian: expected 16, found 17", error);
  CHECK_THROWS_WITH_AS(run({{W, tall}}), "cuda::search_awq_scales: rows of a Hessian: expected 16, found 17", error);
  auto const other = send(device, random_weight(4, 24, 1));
  auto const good = send(device, gram_of(random_input(8, 16, 1)));
  CHECK_THROWS_WITH_AS(run({{W, good}, {other, H}}),
                       "cuda::search_awq_scales: inputs of a member: expected 16, found 24", error);
  auto bad = random_weight(4, 16, 1);
  bad(3, 2) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(run({{send(device, bad), good}}), "cuda::search_awq_scales: W[3, 2]: expected a finite value",
                       input_error);
}

}  // namespace cuda_awq_search_test
