#include "program.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <stdexcept>

namespace ptx {

namespace {

std::string without_comments(std::string const& text) {
  std::string kept;
  kept.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.compare(i, 2, "//") == 0) {
      i = std::min(text.find('\n', i), text.size());
      kept += '\n';
    } else if (text.compare(i, 2, "/*") == 0) {
      i = text.find("*/", i) + 1;
    } else {
      kept += text[i];
    }
  }
  return kept;
}

std::size_t size_of(std::string const& named) {
  if (named == ".pred") return 1;
  return static_cast<std::size_t>(std::stoul(named.substr(named.find_first_of("0123456789")))) / 8;
}

// ".align 8 .b8 name[40]" and ".u32 name".
struct variable {
  std::string name;
  std::size_t alignment = 1, size = 0;
};
variable read_variable(std::string const& declaration) {
  variable made;
  std::vector<std::string> words;
  for (std::string& word : split(declaration, ' '))
    if (!word.empty()) words.push_back(word);
  std::size_t element = 1;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == ".align") {
      made.alignment = static_cast<std::size_t>(std::stoul(words[++i]));
    } else if (words[i][0] == '.') {
      if (words[i] == ".param" || words[i] == ".shared" || words[i] == ".local" || words[i] == ".extern" || words[i] == ".global") continue;
      element = size_of(words[i]);
      made.alignment = std::max(made.alignment, element);
    } else {
      std::size_t const bracket = words[i].find('[');
      made.name = words[i].substr(0, bracket);
      made.size = element;
      if (bracket != std::string::npos) {
        std::string const count = words[i].substr(bracket + 1, words[i].find(']') - bracket - 1);
        made.size = count.empty() ? 0 : element * static_cast<std::size_t>(std::stoul(count));
      }
    }
  }
  return made;
}


std::map<std::string, unsigned> const& special_names() {
  static std::map<std::string, unsigned> const names{
      {"%tid.x", tid_x},       {"%tid.y", tid_y},       {"%tid.z", tid_z},       {"%ntid.x", ntid_x},   {"%ntid.y", ntid_y},
      {"%ntid.z", ntid_z},     {"%ctaid.x", ctaid_x},   {"%ctaid.y", ctaid_y},   {"%ctaid.z", ctaid_z}, {"%nctaid.x", nctaid_x},
      {"%nctaid.y", nctaid_y}, {"%nctaid.z", nctaid_z}, {"%laneid", laneid},     {"%warpid", warpid},   {"%smid", smid},
      {"_", sink}};
  return names;
}

// A variable of the file, in device memory until the program ends: the compiler's own tables of bytes.
void* device_variable(std::string const& head, std::string const& declaration) {
  variable const v = read_variable(head);
  if (head.find(".b8 ") == std::string::npos) throw std::runtime_error("a variable of other elements than bytes: " + head);
  std::vector<unsigned char> bytes;
  if (std::size_t const open = declaration.find('{'); open != std::string::npos)
    for (std::string const& byte : split(declaration.substr(open + 1, declaration.find('}') - open - 1), ','))
      bytes.push_back(static_cast<unsigned char>(std::stoul(trimmed(byte))));
  bytes.resize(v.size);
  void* data = nullptr;
  cudaMalloc(&data, bytes.size());
  cudaMemcpyAsync(data, bytes.data(), bytes.size(), cudaMemcpyDefault, nullptr);
  return data;
}

constexpr std::uint64_t shared_start = 1024;

}  // namespace

std::vector<std::string> split(std::string const& text, char by) {
  std::vector<std::string> found;
  int depth = 0;
  std::string now;
  for (char const c : text) {
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (depth == 0 && (c == by || (by == ' ' && std::isspace(static_cast<unsigned char>(c))))) {
      found.push_back(now);
      now.clear();
    } else {
      now += c;
    }
  }
  found.push_back(now);
  return found;
}

bool has(std::vector<std::string> const& parts, char const* what) { return std::find(parts.begin(), parts.end(), what) != parts.end(); }

std::string trimmed(std::string const& text) {
  std::size_t first = 0, last = text.size();
  while (first < last && std::isspace(static_cast<unsigned char>(text[first]))) ++first;
  while (last > first && std::isspace(static_cast<unsigned char>(text[last - 1]))) --last;
  return text.substr(first, last - first);
}

std::vector<std::string> pieces(std::string const& operand) {
  if (operand.empty() || operand[0] != '{') return {operand};
  std::vector<std::string> found = split(operand.substr(1, operand.rfind('}') - 1), ',');
  for (std::string& piece : found) piece = trimmed(piece);
  return found;
}

unsigned slot_of(kernel& in, std::string operand) {
  operand = trimmed(operand);
  if (auto const special = special_names().find(operand); special != special_names().end()) return special->second;
  if (auto const known = in.registers.find(operand); known != in.registers.end()) return known->second;
  if (operand.empty()) throw std::runtime_error("an operand is missing");
  for (parameter const& p : in.parameters)
    if (p.name == operand) return slot_of(in, std::to_string(p.offset));
  std::uint64_t value = 0;
  if (operand == "WARP_SZ") {
    value = 32;
  } else if (operand[0] == '0' && operand.size() > 2 && (operand[1] == 'f' || operand[1] == 'F' || operand[1] == 'd' || operand[1] == 'D')) {
    value = std::stoull(operand.substr(2), nullptr, 16);
  } else if (operand[0] == '-') {
    value = static_cast<std::uint64_t>(std::stoll(operand, nullptr, 0));
  } else if (std::isdigit(static_cast<unsigned char>(operand[0]))) {
    value = std::stoull(operand, nullptr, 0);
  } else {
    throw std::runtime_error("unknown name " + operand);
  }
  std::string const name = "constant " + std::to_string(value);
  if (auto const known = in.registers.find(name); known != in.registers.end()) return known->second;
  in.constants.emplace_back(in.slots, value);
  return in.registers[name] = in.slots++;
}

// The address "[register + offset]" or "[name + offset]": a slot at the end of `at`, the offset in extra[0].
void address_of(kernel& in, instruction& to, std::string operand) {
  if (operand.size() < 2 || operand[0] != '[') throw std::runtime_error("expected an address, found " + operand);
  operand = trimmed(operand.substr(1, operand.rfind(']') - 1));
  std::size_t const plus = operand.find('+');
  to.extra[0] = plus == std::string::npos ? 0 : std::stoll(trimmed(operand.substr(plus + 1)), nullptr, 0);
  std::string const name = trimmed(operand.substr(0, plus));
  to.at.push_back(slot_of(in, name));
}

void build(kernel& in, instruction& to, std::string const& operation, std::vector<std::string> const& operands) {
  std::vector<std::string> parts = split(operation, '.');
  if (build_arithmetic(in, to, parts, operands) || build_conversion(in, to, parts, operands) ||
      build_exchange(in, to, parts, operands) || build_memory(in, to, parts, operands) ||
      build_tensor_cores(in, to, parts, operands))
    return;
  throw std::runtime_error("no handler for " + operation);
}

std::map<std::string, std::string> entries(std::string const& whole) {
  std::string const text = without_comments(whole);
  std::map<std::string, std::string> found;
  // What stands outside of entries: variables of the file.
  std::string outside;
  std::size_t at = 0;
  for (;;) {
    std::size_t const entry = text.find(".entry", at);
    std::size_t const stop = std::min(entry, text.size());
    for (std::size_t line = at; line < stop;) {
      std::size_t const end = std::min(text.find('\n', line), stop);
      std::string const one = trimmed(text.substr(line, end - line));
      if (one.find(".shared") != std::string::npos || one.find(".global") != std::string::npos) outside += one + "\n";
      line = end + 1;
    }
    if (entry == std::string::npos) return found;
    std::size_t const open = text.find('(', entry);
    std::string const name = trimmed(text.substr(entry + 6, open - entry - 6));
    std::size_t body = text.find('{', open), end = body;
    int depth = 0;
    do {
      if (text[end] == '{') ++depth;
      if (text[end] == '}') --depth;
      ++end;
    } while (depth > 0);
    found[name] = outside + text.substr(entry, end - entry);
    at = end;
  }
}

kernel parse(std::string const& entry) {
  kernel made;
  std::size_t const start = entry.find(".entry");
  std::size_t const open = entry.find('(', start);
  made.name = trimmed(entry.substr(start + 6, open - start - 6));
  std::size_t const close = entry.find(')', open);
  for (std::string const& text : split(entry.substr(open + 1, close - open - 1), ',')) {
    if (trimmed(text).empty()) continue;
    variable const v = read_variable(trimmed(text));
    made.parameter_bytes = (made.parameter_bytes + v.alignment - 1) / v.alignment * v.alignment;
    made.parameters.push_back({v.name, made.parameter_bytes, v.size});
    made.parameter_bytes += v.size;
  }

  auto const shared_variable = [&](std::string const& declaration) {
    variable const v = read_variable(declaration);
    unsigned const slot = made.registers[v.name] = made.slots++;
    if (declaration.find(".extern") != std::string::npos) {
      made.dynamic_alignment = std::max(made.dynamic_alignment, v.alignment);
      made.dynamic_shared.push_back(slot);
      return;
    }
    made.static_shared = (made.static_shared + v.alignment - 1) / v.alignment * v.alignment;
    made.constants.emplace_back(slot, shared_start + made.static_shared);
    made.static_shared += v.size;
  };
  for (std::string const& line : split(entry.substr(0, start), '\n')) {
    // Static variables of the file belong to the kernels that name them.
    std::string declaration = trimmed(line);
    if (declaration.empty()) continue;
    if (declaration.back() == ';') declaration.pop_back();
    std::string const head = trimmed(declaration.substr(0, declaration.find('=')));
    if (entry.find(read_variable(head).name, start) == std::string::npos) continue;
    if (head.find(".global") == std::string::npos) {
      shared_variable(declaration);
    } else {
      made.registers[read_variable(head).name] = made.slots;
      made.constants.emplace_back(made.slots++, reinterpret_cast<std::uint64_t>(device_variable(head, declaration)));
    }
  }

  std::string const body = entry.substr(entry.find('{', close) + 1);
  std::map<std::string, unsigned> labels;
  std::vector<std::pair<std::size_t, std::string>> jumps;
  for (std::size_t i = 0; i < body.size();) {
    if (std::isspace(static_cast<unsigned char>(body[i])) || body[i] == '{' || body[i] == '}') {
      ++i;
      continue;
    }
    std::size_t const word_end = body.find_first_of(" \t\n;:", i);
    if (body[word_end] == ':' && body[word_end + 1] != ':') {
      labels[body.substr(i, word_end - i)] = static_cast<unsigned>(made.code.size());
      i = word_end + 1;
      continue;
    }
    std::size_t const end = body.find(';', i);
    std::string statement = trimmed(body.substr(i, end - i));
    std::replace_if(statement.begin(), statement.end(), [](char c) { return c == '\t' || c == '\n'; }, ' ');
    i = end + 1;
    if (statement.compare(0, 4, ".reg") == 0) {
      std::string const rest = trimmed(statement.substr(4));
      for (std::string name : split(rest.substr(rest.find(' ')), ',')) {
        name = trimmed(name);
        std::size_t const bracket = name.find('<');
        if (bracket == std::string::npos) {
          if (made.registers.count(name) == 0) made.registers[name] = made.slots++;
          continue;
        }
        unsigned const count = static_cast<unsigned>(std::stoul(name.substr(bracket + 1)));
        for (unsigned n = 0; n < count; ++n) made.registers[name.substr(0, bracket) + std::to_string(n)] = made.slots++;
      }
      continue;
    }
    if (statement.compare(0, 7, ".shared") == 0) {
      shared_variable(statement);
      continue;
    }
    if (statement.compare(0, 6, ".local") == 0) {
      variable const v = read_variable(statement);
      if (made.local_bytes != 0) throw std::runtime_error(made.name + ": more than one local array");
      made.local_bytes = v.size;
      made.registers[v.name] = local_base;
      continue;
    }
    if (statement.compare(0, 7, ".pragma") == 0) continue;
    if (statement[0] == '.') throw std::runtime_error(made.name + ": unknown directive " + statement);

    instruction now;
    now.text = statement.substr(0, 200);
    if (statement[0] == '@') {
      std::size_t const space = statement.find(' ');
      now.negated = statement[1] == '!';
      now.guard = static_cast<int>(slot_of(made, statement.substr(now.negated ? 2 : 1, space - (now.negated ? 2 : 1))));
      statement = trimmed(statement.substr(space));
    }
    std::size_t const space = std::min(statement.find(' '), statement.size());
    std::string const operation = statement.substr(0, space);
    std::vector<std::string> operands;
    if (std::string const rest = trimmed(statement.substr(space)); !rest.empty())
      for (std::string const& operand : split(rest, ',')) operands.push_back(trimmed(operand));
    try {
      if (operation == "bra" || operation == "bra.uni") {
        now.then = flow::branch;
        jumps.emplace_back(made.code.size(), operands.at(0));
      } else if (operation == "ret" || operation == "exit") {
        now.then = flow::leave;
      } else if (operation == "bar.sync" || operation == "barrier.sync") {
        if (operands.size() != 1 || operands[0] != "0") throw std::runtime_error("barriers with numbers are not known");
        now.then = flow::barrier;
        now.together = true;
      } else {
        build(made, now, operation, operands);
      }
    } catch (std::exception const& failure) {
      throw std::runtime_error(made.name + ": " + statement.substr(0, 300) + ": " + failure.what());
    }
    made.code.push_back(std::move(now));
  }
  instruction last;
  last.then = flow::leave;
  last.text = "the end";
  made.code.push_back(last);
  for (auto const& [at, label] : jumps) made.code[at].target = labels.at(label);
  return made;
}

}  // namespace ptx
