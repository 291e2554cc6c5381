// N of every M: scores, ranks within the group and the bits of the mask in registers, one pass over a row.

#if defined(SLIMTRIM_SIMD_TARGET_SELECT_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_SELECT_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_SELECT_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_SELECT_TOGGLE
#endif

#include <slimtrim/simd/target/lanes.hpp>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

#if HWY_HAVE_SCALABLE

inline constexpr index_t most_of_group = 0;
inline std::uint32_t keep_in_groups(element_kind, void const*, float const*, index_t, index_t, index_t, std::uint64_t*) {
  return 0;
}

#else

/// Groups must lie within one vector; 0: none does.
inline constexpr index_t most_of_group = width >= 8 ? 8 : width >= 4 ? 4 : 0;

/// Where lane l finds the lane `By` further in its group, around the group's end, and 1 where that one has the lower index.
template <int Group, int By>
struct neighbours {
  alignas(64) std::int32_t from[std::size_t{width}], lower[std::size_t{width}];
  constexpr neighbours() : from(), lower() {
    for (int lane = 0; lane < width; ++lane) {
      from[lane] = lane / Group * Group + (lane + By) % Group;
      lower[lane] = from[lane] < lane ? 1 : 0;
    }
  }
};

/// Adds -1 to `before` where the neighbour ranks before: higher, or equal and of the lower index. Scores are not negative, so their
/// bits compare as they do, and the least of steps makes "not lower" of "higher".
template <int Group, int By>
HWY_INLINE vector_i count_before(vector_i score, vector_i before) {
  static constexpr neighbours<Group, By> beside;
  vector_i const other = hn::TableLookupLanes(score, hn::SetTableIndices(tag_i{}, beside.from));
  vector_i const raised = hn::Add(other, hn::Load(tag_i{}, beside.lower));
  vector_i const counted = hn::Add(before, hn::VecFromMask(tag_i{}, hn::Gt(raised, score)));
  if constexpr (By + 1 < Group) return count_before<Group, By + 1>(score, counted);
  return counted;
}

template <int Group, class T>
HWY_NOINLINE std::uint32_t keep_of(T const* row, float const* norms, index_t columns, std::int32_t keep,
                                   std::uint64_t* out) {
  integers largest = broadcast(std::int32_t{0});
  vector_i const bar = part_set(-keep);
  for (index_t first = 0; first < columns; first += 64) {
    std::uint64_t bits = 0;
    fetch_ahead(reinterpret_cast<std::byte const*>(row + first) + bytes_ahead, static_cast<int>(64 * sizeof(T)));
    SLIMTRIM_UNROLL for (int k = 0; k < 64; k += lanes) {
      words const magnitudes = mask(as_words(load(row + first + k)), 0x7fffffffU);
      largest = larger(largest, as_integers(magnitudes));
      integers const score = as_integers(as_words(multiply(as_floats(magnitudes), load(norms + first + k))));
      SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) {
        std::uint64_t some = 0;
        hn::StoreMaskBits(tag_i{}, hn::Gt(count_before<Group, 1>(score.part[i], part_set(std::int32_t{0})), bar),
                          reinterpret_cast<std::uint8_t*>(&some));
        bits |= some << (k + static_cast<int>(i) * width);
      }
    }
    *out++ = bits;
  }
  return static_cast<std::uint32_t>(largest_lane(largest));
}

template <class T>
std::uint32_t keep_of_type(void const* row, float const* norms, index_t columns, index_t group, index_t keep,
                           std::uint64_t* out) {
  auto const* const from = static_cast<T const*>(row);
  if constexpr (most_of_group == 8)
    if (group == 8) return keep_of<8>(from, norms, columns, static_cast<std::int32_t>(keep), out);
  return keep_of<4>(from, norms, columns, static_cast<std::int32_t>(keep), out);
}

inline std::uint32_t keep_in_groups(element_kind kind, void const* row, float const* norms, index_t columns, index_t group,
                                    index_t keep, std::uint64_t* out) {
  if (kind == element_kind::floats) return keep_of_type<float>(row, norms, columns, group, keep, out);
  if (kind == element_kind::bfloat16_pairs) return keep_of_type<bfloat16>(row, norms, columns, group, keep, out);
  return keep_of_type<float16>(row, norms, columns, group, keep, out);
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
