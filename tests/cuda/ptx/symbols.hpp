// Names of functions that run in this process.
#pragma once

#include <string>

namespace ptx {

std::string demangled(std::string const& symbol);
// The demangled name of the function at `address`, static functions included: from the symbol table of the file that it was
// loaded from. Throws where there is none.
std::string name_of_function(void const* address);

}  // namespace ptx
