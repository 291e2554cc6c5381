// A kernel as the compiler wrote it, ready to be carried out: instructions of one handler each, operands as numbers of slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ptx {

struct warp;
struct instruction;
using handler = void (*)(warp&, instruction const&);

enum class flow { next, branch, leave, barrier };

struct instruction {
  handler run = nullptr;
  flow then = flow::next;
  bool together = false;         // all lanes of the warp at once
  bool negated = false;
  int guard = -1;                // the slot of the predicate
  std::vector<unsigned> at;      // slots: what is written, then what is read
  unsigned written = 0;          // how many of them are written
  std::int64_t extra[4] = {};    // what else the handler needs: offsets, widths, codes
  unsigned target = 0;
  std::string text;
};

struct parameter {
  std::string name;
  std::size_t offset = 0, size = 0;
};

// Slots 0 to specials - 1 of every kernel.
enum special : unsigned {
  tid_x, tid_y, tid_z, ntid_x, ntid_y, ntid_z, ctaid_x, ctaid_y, ctaid_z, nctaid_x, nctaid_y, nctaid_z, laneid, warpid, smid, sink,
  local_base, specials
};

struct kernel {
  std::string name;
  std::vector<parameter> parameters;
  std::size_t parameter_bytes = 0;
  bool has_products = false;  // of warpgroups
  std::size_t static_shared = 0, dynamic_alignment = 16, local_bytes = 0;
  unsigned slots = specials;
  std::map<std::string, unsigned> registers;
  std::vector<std::pair<unsigned, std::uint64_t>> constants;  // slot, value of all lanes
  std::vector<unsigned> dynamic_shared;                       // slots that hold the address of dynamic shared memory
  std::vector<instruction> code;
};

// The entries of a PTX file by name, as text.
std::map<std::string, std::string> entries(std::string const& text);
kernel parse(std::string const& entry);

// One instruction: `operation` with its dots, `operands` as they stand between commas. Throws std::runtime_error for what no kernel
// of ours has.
void build(kernel& in, instruction& to, std::string const& operation, std::vector<std::string> const& operands);
unsigned slot_of(kernel& in, std::string operand);
void address_of(kernel& in, instruction& to, std::string operand);
std::vector<std::string> split(std::string const& text, char by);
std::string trimmed(std::string const& text);
bool has(std::vector<std::string> const& parts, char const* what);
// The pieces of "{a, b}", or the operand itself.
std::vector<std::string> pieces(std::string const& operand);

// Each file of instructions takes what it knows.
bool build_arithmetic(kernel& in, instruction& to, std::vector<std::string> const& parts, std::vector<std::string> const& operands);
bool build_conversion(kernel& in, instruction& to, std::vector<std::string> const& parts, std::vector<std::string> const& operands);
bool build_exchange(kernel& in, instruction& to, std::vector<std::string> const& parts, std::vector<std::string> const& operands);
bool build_memory(kernel& in, instruction& to, std::vector<std::string> const& parts, std::vector<std::string> const& operands);
bool build_tensor_cores(kernel& in, instruction& to, std::vector<std::string> const& parts, std::vector<std::string> const& operands);

}  // namespace ptx
