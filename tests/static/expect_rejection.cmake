# cmake -DSOURCE=... -DCOMPILER=... -DFLAGS="a;b" -P expect_rejection.cmake
# Compiles SOURCE (syntax only) and compares with its first line: "// expects: success", or "// expects: <regex>" for
# a program that must be refused with a message that matches.
file(STRINGS "${SOURCE}" first_line LIMIT_COUNT 1)
string(REGEX REPLACE "^// expects: " "" expected "${first_line}")
if(expected STREQUAL first_line)
  message(FATAL_ERROR "${SOURCE}: the first line must say what it expects")
endif()
execute_process(COMMAND ${COMPILER} ${FLAGS} -fsyntax-only "${SOURCE}"
                RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE messages)
if(expected STREQUAL "success")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${SOURCE} must compile:\n${messages}")
  endif()
elseif(status EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles, but must not")
elseif(NOT messages MATCHES "${expected}")
  message(FATAL_ERROR "${SOURCE} is refused, but the message does not name ${expected}:\n${messages}")
endif()
