// The JSON object that a command prints with --json.
#pragma once

#include "command.hpp"

#include <slimtrim/io/json.hpp>

namespace cli {

/// Prints `keys` behind the name of the command that made them, by which `report` knows them again.
inline void print_document(session const& at, char const* command, slimtrim::ordered_json const& keys) {
  slimtrim::ordered_json document{{"command", command}};
  document.update(keys);
  at.print(slimtrim::json_text(document));
}

}  // namespace cli
