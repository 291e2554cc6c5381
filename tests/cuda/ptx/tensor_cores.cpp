// Products of tiles as the PTX ISA describes their fragments. Lane l is of group l / 4 and member l % 4.
#include "warp.hpp"

#include <algorithm>
#include <stdexcept>

namespace ptx {

namespace {

using strings = std::vector<std::string>;

struct element {
  unsigned row, column;
};
// Element n (two a register) of the 16 x 16 operand A that a lane holds, and of the 16 x 8 sums.
element of_a(unsigned lane, unsigned n) { return {lane / 4 + (n / 2 % 2) * 8, lane % 4 * 2 + n % 2 + n / 4 * 8}; }
element of_sum(unsigned lane, unsigned n) { return {lane / 4 + n / 2 * 8, lane % 4 * 2 + n % 2}; }
// Element n of a K x 8 operand B.
element of_b(unsigned lane, unsigned n) { return {lane % 4 * 2 + n % 2 + n / 2 * 8, lane / 4}; }

template <bool Brain>
float half_of(warp& w, unsigned slot, unsigned lane, unsigned upper) {
  return widen<Brain>(static_cast<std::uint16_t>(w.lanes(slot)[lane] >> 16 * upper));
}

template <bool Brain>
void gather_a(warp& w, unsigned const* slots, float (&a)[16][16]) {
  for (unsigned l = 0; l < 32; ++l)
    for (unsigned n = 0; n < 8; ++n) {
      element const e = of_a(l, n);
      a[e.row][e.column] = half_of<Brain>(w, slots[n / 2], l, n % 2);
    }
}

// d = c + A B: d the first four slots, B from slot 8 on and c behind it. Products are exact; a sum of one instruction is rounded once
// here, several times on a device.
template <bool Brain, unsigned K>
void add_product(warp& w, instruction const& i, float const (&a)[16][K]) {
  float b[K][8];
  for (unsigned l = 0; l < 32; ++l)
    for (unsigned n = 0; n < K / 4; ++n) {
      element const e = of_b(l, n);
      b[e.row][e.column] = half_of<Brain>(w, i.at[8 + n / 2], l, n % 2);
    }
  float sums[4][32];
  for (unsigned l = 0; l < 32; ++l)
    for (unsigned n = 0; n < 4; ++n) {
      element const e = of_sum(l, n);
      double sum = get<float>(w.lanes(i.at[8 + K / 8 + n])[l]);
      for (unsigned k = 0; k < K; ++k) sum += static_cast<double>(a[e.row][k]) * b[k][e.column];
      sums[n][l] = static_cast<float>(sum);
    }
  for (unsigned n = 0; n < 4; ++n)
    for (unsigned l = 0; l < 32; ++l) w.lanes(i.at[n])[l] = put(sums[n][l]);
}

template <bool Brain>
void multiply(warp& w, instruction const& i) {
  float a[16][16];
  gather_a<Brain>(w, &i.at[4], a);
  add_product<Brain>(w, i, a);
}

// Of every four columns of A two are kept. The lanes 2 s and 2 s + 1 of each group, s the selector, hold the places: four times
// twice two bits in the low half for row g, in the high half for row g + 8, of columns 0 to 15 and 16 to 31.
template <bool Brain>
void multiply_sparse(warp& w, instruction const& i) {
  float kept[16][16], a[16][32] = {};
  gather_a<Brain>(w, &i.at[4], kept);
  auto const selector = static_cast<unsigned>(i.extra[0]);
  for (unsigned row = 0; row < 16; ++row)
    for (unsigned part = 0; part < 8; ++part) {
      auto const word = get<std::uint32_t>(w.lanes(i.at[16])[row % 8 * 4 + selector * 2 + part / 4]);
      unsigned const places = word >> (row / 8 * 16 + part % 4 * 4) & 15, first = places & 3, second = places >> 2;
      if (first >= second) stop(w, row % 8 * 4, "places of kept columns that do not ascend");
      a[row][part * 4 + first] = kept[row][part * 2];
      a[row][part * 4 + second] = kept[row][part * 2 + 1];
    }
  add_product<Brain>(w, i, a);
}

// extra: offset, matrices, whether they are transposed.
void load_matrices(warp& w, instruction const& i) {
  auto const count = static_cast<unsigned>(i.extra[1]);
  std::uint16_t found[4][8][8];
  for (unsigned m = 0; m < count; ++m)
    for (unsigned row = 0; row < 8; ++row) {
      unsigned const lane = m * 8 + row;
      std::uint64_t const address = get<std::uint32_t>(w.lanes(i.at[count])[lane]) + static_cast<std::uint64_t>(i.extra[0]);
      if (address % 16 != 0) stop(w, lane, "a row of a matrix that is not aligned");
      reads_shared(w, lane, address, 16);
      std::memcpy(found[m][row], w.home->shared + address, 16);
    }
  for (unsigned m = 0; m < count; ++m)
    for (unsigned l = 0; l < 32; ++l) {
      unsigned const g = l / 4, t = l % 4 * 2;
      bool const turned = i.extra[2] != 0;
      std::uint32_t const low = turned ? found[m][t][g] : found[m][g][t], high = turned ? found[m][t + 1][g] : found[m][g][t + 1];
      w.lanes(i.at[m])[l] = low | high << 16;
    }
}

// The product of a warpgroup: this warp's 16 rows of A from its registers, 128 tokens of 16 columns from shared memory, rows of 128
// bytes whose 16-byte pieces change places by the row within eight.
struct shared_tile {
  std::uint64_t start, eight_rows;
};
shared_tile tile_of(warp& w, std::uint64_t descriptor) {
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) stop(w, 0, "a descriptor without the 128-byte swizzle");
  return {(descriptor & 0x3fff) << 4, (descriptor >> 32 & 0x3fff) << 4};
}
std::uint64_t address_in(shared_tile const& tile, unsigned token, unsigned column) {
  std::uint64_t const address = tile.start + token / 8 * tile.eight_rows + token % 8 * 128 + column * 2;
  return address ^ (address >> 7 & 7) << 4;
}
void mark_tile(warp& w, shared_tile const& tile, int change) {
  for (unsigned token = 0; token < 128; ++token)
    for (unsigned column = 0; column < 16; ++column) {
      std::uint64_t const address = address_in(tile, token, column);
      reads_shared(w, token % 32, address, 2, true);
      auto& e = w.home->shadow[address / 2];
      e.products = static_cast<std::uint8_t>(e.products + change);
    }
}
template <bool Brain>
void carry_out(warp& w, instruction const& i, std::uint64_t descriptor) {
  shared_tile const tile = tile_of(w, descriptor);
  mark_tile(w, tile, -1);
  float a[16][16];
  gather_a<Brain>(w, &i.at[64], a);
  static float b[16][128];
  for (unsigned token = 0; token < 128; ++token)
    for (unsigned k = 0; k < 16; ++k) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, w.home->shared + address_in(tile, token, k), 2);
      b[k][token] = widen<Brain>(bits);
    }
  for (unsigned n = 0; n < 64; ++n)
    for (unsigned l = 0; l < 32; ++l) {
      element const e = of_sum(l, n % 4);
      unsigned const token = n / 4 * 8 + e.column;
      double sum = get<float>(w.lanes(i.at[n])[l]);
      for (unsigned k = 0; k < 16; ++k) sum += static_cast<double>(a[e.row][k]) * b[k][token];
      w.lanes(i.at[n])[l] = put(static_cast<float>(sum));
    }
}

// Enqueued here and carried out as late as the rules allow, so that what changes registers or shared memory too early shows.
void multiply_warpgroup(warp& w, instruction const& i) {
  if (w.mask != 0xffffffffU) stop(w, 0, "a product of fewer than 32 lanes");
  for (unsigned l = 0; l < 32; ++l)
    if ((w.lanes(i.at[69])[l] & 1) == 0) stop(w, l, "a product that does not add to its sums");
  std::uint64_t const descriptor = w.lanes(i.at[68])[0];
  for (unsigned l = 1; l < 32; ++l)
    if (w.lanes(i.at[68])[l] != descriptor) stop(w, l, "lanes with different descriptors");
  for (std::size_t n = 0; n < 68; ++n)
    if (w.written[i.at[n]] != 0) stop(w, 0, "a product without wgmma.fence after its registers were written");
  mark_tile(w, tile_of(w, descriptor), 1);
  w.products.push_back({&i, descriptor, -1});
  for (std::size_t n = 0; n < 68; ++n) w.under_way[i.at[n]] = n < 64 ? 2 : 1;
}
void begin_products(warp& w, instruction const&) { std::fill(w.written.begin(), w.written.end(), static_cast<unsigned char>(0)); }
void close_products(warp& w, instruction const&) {
  for (pending_product& p : w.products)
    if (p.group < 0) p.group = w.open_products;
  ++w.open_products;
}
void wait_products(warp& w, instruction const& i) { settle_products(w, static_cast<int>(i.extra[0])); }

}  // namespace

void settle_products(warp& w, int pending) {
  std::size_t done = 0;
  for (; done < w.products.size() && w.products[done].group >= 0 && w.products[done].group < w.open_products - pending; ++done) {
    pending_product const& p = w.products[done];
    if (p.what->extra[0] != 0) {
      carry_out<true>(w, *p.what, p.descriptor);
    } else {
      carry_out<false>(w, *p.what, p.descriptor);
    }
  }
  w.products.erase(w.products.begin(), w.products.begin() + static_cast<std::ptrdiff_t>(done));
  std::fill(w.under_way.begin(), w.under_way.end(), static_cast<unsigned char>(0));
  for (pending_product const& p : w.products)
    for (std::size_t n = 0; n < 68; ++n) w.under_way[p.what->at[n]] = n < 64 ? 2 : 1;
}

bool build_tensor_cores(kernel& in, instruction& to, strings const& parts, strings const& operands) {
  std::string const& name = parts[0];
  bool const brain = has(parts, "bf16");
  to.together = true;
  auto const all = [&](std::size_t first, std::size_t last) {
    for (std::size_t n = first; n < last; ++n)
      for (std::string const& piece : pieces(operands[n])) to.at.push_back(slot_of(in, piece));
  };
  if (name == "mma" && has(parts, "m16n8k16") && has(parts, "row") && has(parts, "col") && has(parts, "f32")) {
    to.run = brain ? multiply<true> : multiply<false>;
    to.written = 4;
    all(0, 4);
    return to.at.size() == 14;
  }
  if (name == "mma" && has(parts, "sp::ordered_metadata") && has(parts, "m16n8k32")) {
    to.run = brain ? multiply_sparse<true> : multiply_sparse<false>;
    to.written = 4;
    all(0, 5);
    to.extra[0] = std::stol(operands[5], nullptr, 0);
    return to.at.size() == 17;
  }
  if (name == "ldmatrix" && has(parts, "m8n8") && has(parts, "b16")) {
    to.run = load_matrices;
    strings const values = pieces(operands[0]);
    to.written = static_cast<unsigned>(values.size());
    for (std::string const& value : values) to.at.push_back(slot_of(in, value));
    address_of(in, to, operands[1]);
    to.extra[1] = static_cast<std::int64_t>(values.size());
    to.extra[2] = has(parts, "trans");
    return true;
  }
  if (name == "wgmma") {
    if (has(parts, "fence")) return to.run = begin_products, true;
    if (has(parts, "commit_group")) return to.run = close_products, true;
    if (has(parts, "wait_group")) {
      to.extra[0] = std::stol(operands[0]);
      to.run = wait_products;
      return true;
    }
    if (!has(parts, "m64n128k16") || !has(parts, "f32") || operands.size() != 7 || operands[4] != "1" || operands[5] != "1" || operands[6] != "0")
      return false;
    to.run = multiply_warpgroup;
    in.has_products = true;
    to.extra[0] = brain;
    to.written = 64;
    all(0, 4);
    return to.at.size() == 70;
  }
  to.together = false;
  return false;
}

}  // namespace ptx
