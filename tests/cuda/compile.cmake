# Compiles SOURCE to OBJECT with nvcc for ARCHITECTURES (90a, ...) and keeps the report of registers and spills beside it.
get_filename_component(folder ${OBJECT} DIRECTORY)
file(MAKE_DIRECTORY ${folder})
set(code)
foreach(architecture IN LISTS ARCHITECTURES)
  list(APPEND code -gencode=arch=compute_${architecture},code=sm_${architecture})
endforeach()
execute_process(
  COMMAND ${COMPILER} -std=c++20 -O2 ${code} -Xptxas -v ${FLAGS} -x cu -MD -MF ${OBJECT}.d
          -c ${SOURCE} -o ${OBJECT}
  RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
file(WRITE ${OBJECT}.report "${output}")
if(failed OR output MATCHES "warning")
  file(REMOVE ${OBJECT})
  string(REGEX REPLACE "ptxas info[^\n]*\n|    [0-9]+ bytes stack[^\n]*\n" "" output "${output}")
  message(FATAL_ERROR "${output}")
endif()
