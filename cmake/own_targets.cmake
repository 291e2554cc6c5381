# Flags of our own programs, tests and benchmarks. Nothing here reaches a user's target.
add_library(slimtrim_own INTERFACE)
target_compile_options(slimtrim_own INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow>
  # False positives of g++ 12 at -O3: two in Eigen's vectorised code, one in std::string (GCC bug 105651), one in its own
  # header of AVX-512 intrinsics (GCC bug 105593).
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-maybe-uninitialized -Wno-uninitialized -Wno-array-bounds -Wno-restrict>)
if(SLIMTRIM_WERROR)
  target_compile_options(slimtrim_own INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(SLIMTRIM_NATIVE)
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-march=native SLIMTRIM_HAS_MARCH_NATIVE)
  if(SLIMTRIM_HAS_MARCH_NATIVE)
    target_compile_options(slimtrim_own INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
  endif()
endif()
if(SLIMTRIM_SANITIZE)
  target_compile_options(slimtrim_own INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer>)
  target_link_options(slimtrim_own INTERFACE -fsanitize=address,undefined)
endif()
