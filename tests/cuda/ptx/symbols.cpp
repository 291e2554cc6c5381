#include "symbols.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <vector>

namespace ptx {

namespace {

template <class T>
T read(std::vector<char> const& file, std::size_t at) {
  T value{};
  if (at + sizeof(T) <= file.size()) std::memcpy(&value, file.data() + at, sizeof(T));
  return value;
}

// Names of functions by where they lie behind the place that the file is loaded at.
std::map<std::uint64_t, std::string> functions_of(char const* path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> const file{std::istreambuf_iterator<char>(in), {}};
  std::map<std::uint64_t, std::string> found;
  auto const header = read<Elf64_Ehdr>(file, 0);
  for (std::size_t s = 0; s < header.e_shnum; ++s) {
    auto const section = read<Elf64_Shdr>(file, header.e_shoff + s * header.e_shentsize);
    if (section.sh_type != SHT_SYMTAB) continue;
    auto const names = read<Elf64_Shdr>(file, header.e_shoff + section.sh_link * header.e_shentsize);
    for (std::size_t at = 0; at < section.sh_size; at += sizeof(Elf64_Sym)) {
      auto const symbol = read<Elf64_Sym>(file, section.sh_offset + at);
      if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_value != 0)
        found[symbol.st_value] = file.data() + names.sh_offset + symbol.st_name;
    }
  }
  return found;
}

}  // namespace

std::string demangled(std::string const& symbol) {
  int status = 0;
  char* const text = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string const name = status == 0 ? text : symbol;
  std::free(text);
  return name;
}

std::string name_of_function(void const* address) {
  Dl_info info{};
  if (dladdr(address, &info) != 0) {
    static std::map<std::string, std::map<std::uint64_t, std::string>> files;
    auto const [file, fresh] = files.try_emplace(info.dli_fname);
    // The program's own name may be one that was found on the path.
    if (fresh) {
      file->second = functions_of(info.dli_fname);
      if (file->second.empty()) file->second = functions_of("/proc/self/exe");
    }
    auto const at = file->second.find(reinterpret_cast<std::uint64_t>(address) - reinterpret_cast<std::uint64_t>(info.dli_fbase));
    if (at != file->second.end()) return demangled(at->second);
  }
  throw std::runtime_error("a kernel without a name");
}

}  // namespace ptx
