# Tests of cuda/: on emulated threads in the host suite; compiled by nvcc under the label `cuda`, run on a device under the
# label `gpu`. Nothing here that needs nvcc is part of a plain build: the tests build it themselves.
set(slimtrim_cuda_tests ${CMAKE_CURRENT_SOURCE_DIR}/cuda)

if(TARGET tests_cuda)
  file(GLOB ptx CONFIGURE_DEPENDS ${slimtrim_cuda_tests}/ptx/*.cpp)
  list(FILTER ptx EXCLUDE REGEX "_test\\.cpp$")
  set(emulator ${slimtrim_cuda_tests}/emulator/emulator.cpp ${slimtrim_cuda_tests}/emulator/libraries.cpp ${ptx})
  target_sources(tests_cuda PRIVATE ${emulator})
  set_source_files_properties(${emulator} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  set_source_files_properties(${ptx} ${slimtrim_cuda_tests}/emulator/libraries.cpp PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Release>:-O3>)
  target_include_directories(tests_cuda BEFORE PRIVATE ${slimtrim_cuda_tests}/emulator)
  target_compile_options(tests_cuda PRIVATE -Wno-unknown-pragmas)
  add_test(NAME cuda/reversed_threads
    COMMAND ${CMAKE_COMMAND} -E env SLIMTRIM_EMULATOR_REVERSED=1 $<TARGET_FILE:tests_cuda>
            --source-file=*few_tokens*,*many_tokens*,*tile_fragment*,*moe_layer*,*moe_few*,*moe_many*,*moe_warpgroup*,*decoder_layer*,*route*,*quantize*,*product*,*rms_norm*,*moe_front*,*rotary*,*attention*,*sample*,*accelerator*,*column_sweep*,*gptq*,*prune_share*,*sparse_sweep*,*sparsegpt*,*awq*,*dense_mlp*,*observed_layer*,*device_sums*,*observed_statistics*,*accelerated_fit*,*/group_test.cpp,*top_k*,*reduce*,*/rows_test.cpp)
endif()

# The program on a device module over emulated threads: the same checks that a device gets below, on fewer tokens and one layer.
# Minutes of emulation, so under the label `cuda`, where they need no CUDA compiler; with one they run its PTX.
if(TARGET slimtrim_program AND TARGET tests_cuda)
  add_library(slimtrim_cuda_emulated MODULE EXCLUDE_FROM_ALL ${slimtrim_cuda_tests}/emulator/device_module.cpp ${emulator})
  target_link_libraries(slimtrim_cuda_emulated PRIVATE slimtrim::slimtrim slimtrim_own)
  target_include_directories(slimtrim_cuda_emulated BEFORE PRIVATE ${slimtrim_cuda_tests}/emulator ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_options(slimtrim_cuda_emulated PRIVATE -Wno-unknown-pragmas $<$<CONFIG:Release>:-O2>)
  set_target_properties(slimtrim_cuda_emulated PROPERTIES PREFIX "" OUTPUT_NAME slimtrim_cuda
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/cuda/emulated)
  add_test(NAME cuda/emulated_module COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target slimtrim_cuda_emulated)
  set_tests_properties(cuda/emulated_module PROPERTIES LABELS cuda TIMEOUT 1800 RESOURCE_LOCK build FIXTURES_SETUP cuda_emulated)
  foreach(command IN ITEMS eval generate bench calibrate compress)
    add_test(NAME cuda/program_${command}
      COMMAND ${CMAKE_COMMAND} -E env LD_LIBRARY_PATH=${CMAKE_CURRENT_BINARY_DIR}/cuda/emulated ${CMAKE_COMMAND}
              -DPROGRAM=$<TARGET_FILE:slimtrim_program> -DTASK=${command} -DTOKENS=64 -DSEQUENCE=32
              -DMODEL=${PROJECT_SOURCE_DIR}/examples/models/tiny-mixtral
              -DWORK=${CMAKE_CURRENT_BINARY_DIR}/cuda/emulated_${command} -P ${slimtrim_cuda_tests}/program.cmake)
    set_tests_properties(cuda/program_${command} PROPERTIES LABELS cuda TIMEOUT 2700 FIXTURES_REQUIRED cuda_emulated
                         FAIL_REGULAR_EXPRESSION "skipped:")
  endforeach()
endif()

if(NOT TARGET slimtrim_cuda OR NOT CMAKE_CUDA_COMPILER)
  message(STATUS "slimtrim: no CUDA compiler or SLIMTRIM_CUDA is off: kernels are tested on emulated threads only")
  return()
endif()

# slimtrim_nvcc(<object> <source> <extra flags...>): an object of one CUDA source and the compiler's resource report, for the
# architectures of slimtrim_architectures; in slimtrim_ptx, a folder, the PTX.
set(slimtrim_architectures 90a)
set(slimtrim_ptx)
function(slimtrim_nvcc object source)
  get_filename_component(name ${source} NAME_WLE)
  set(ptx)
  if(slimtrim_ptx)
    set(ptx -DPTX=${slimtrim_ptx}/${name}.ptx)
  endif()
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -DCOMPILER=${CMAKE_CUDA_COMPILER} -DSOURCE=${source} -DOBJECT=${object}
            "-DARCHITECTURES=${slimtrim_architectures}" ${ptx}
            "-DFLAGS=-I${PROJECT_SOURCE_DIR}/include;-I${PROJECT_SOURCE_DIR}/tests;${ARGN}"
            -P ${slimtrim_cuda_tests}/compile.cmake
    DEPENDS ${source} ${slimtrim_cuda_tests}/compile.cmake DEPFILE ${object}.d COMMENT "nvcc ${source}" VERBATIM)
endfunction()

# Files that launch kernels; layouts alone need no device.
file(GLOB sources CONFIGURE_DEPENDS ${slimtrim_cuda_tests}/*_test.cpp ${slimtrim_cuda_tests}/model/*_test.cpp
     ${slimtrim_cuda_tests}/device/*_test.cu)
set(objects)
set(names)
set(files)
set(slimtrim_ptx ${CMAKE_CURRENT_BINARY_DIR}/cuda/ptx)
file(MAKE_DIRECTORY ${slimtrim_ptx})
foreach(source IN LISTS sources)
  file(STRINGS ${source} device_code REGEX "\\.cuh>")
  if(device_code)
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.o)
    slimtrim_nvcc(${object} ${source})
    list(APPEND objects ${object})
    get_filename_component(file ${source} NAME)
    list(APPEND files ${file})
    string(REGEX REPLACE "_test$" "" name ${name})
    list(APPEND names ${name})
  endif()
endforeach()
set(slimtrim_ptx)
slimtrim_nvcc(${CMAKE_CURRENT_BINARY_DIR}/cuda/main.o ${slimtrim_cuda_tests}/device_main.cu)
list(APPEND objects ${CMAKE_CURRENT_BINARY_DIR}/cuda/main.o)
set(program ${CMAKE_CURRENT_BINARY_DIR}/cuda/device_tests)
add_custom_command(OUTPUT ${program}
  COMMAND ${CMAKE_CUDA_COMPILER} -o ${program} ${objects} -lcublas -lcusolver DEPENDS ${objects} VERBATIM)
add_custom_target(tests_cuda_device DEPENDS ${program})

add_test(NAME cuda/compile COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target tests_cuda_device)
set_tests_properties(cuda/compile PROPERTIES LABELS cuda TIMEOUT 3600 RESOURCE_LOCK build FIXTURES_SETUP cuda_device_tests)
add_test(NAME cuda/resources
  COMMAND ${CMAKE_COMMAND} -DFOLDER=${CMAKE_CURRENT_BINARY_DIR}/cuda -DSOURCES=${slimtrim_cuda_tests}
          "-DARCHITECTURES=sm_80;sm_90a" -P ${slimtrim_cuda_tests}/check_resources.cmake)
set_tests_properties(cuda/resources PROPERTIES LABELS cuda FIXTURES_REQUIRED "cuda_device_tests;cuda_instances")
foreach(name file IN ZIP_LISTS names files)
  add_test(NAME gpu/${name} COMMAND ${program} --source-file=*/${file})
  set_tests_properties(gpu/${name} PROPERTIES LABELS gpu FIXTURES_REQUIRED cuda_device_tests SKIP_RETURN_CODE 77
                       FAIL_REGULAR_EXPRESSION "test cases: 0 ")
  # The same without a device: the emulated launch runs what nvcc compiled.
  if(TARGET tests_cuda AND file MATCHES "\\.cpp$")
    add_test(NAME cuda/ptx_${name} COMMAND tests_cuda --source-file=*/${file})
    set_tests_properties(cuda/ptx_${name} PROPERTIES LABELS cuda FIXTURES_REQUIRED cuda_device_tests TIMEOUT 1800
                         ENVIRONMENT SLIMTRIM_PTX=${CMAKE_CURRENT_BINARY_DIR}/cuda/ptx/${name}_test.ptx FAIL_REGULAR_EXPRESSION "test cases: 0 ")
  endif()
endforeach()

# The program's device module, so that the program's commands on emulated threads run what nvcc made of its kernels.
if(TARGET slimtrim_cuda_emulated)
  set(module_ptx)
  foreach(part IN ITEMS device_cuda device_slim)
    set(made ${CMAKE_CURRENT_BINARY_DIR}/cuda/module_ptx/${part}.ptx)
    add_custom_command(OUTPUT ${made}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/cuda/module_ptx
      COMMAND ${CMAKE_CUDA_COMPILER} -std=c++20 -O2 -arch=sm_90a -ptx -I${PROJECT_SOURCE_DIR}/include -MD -MF ${made}.d
              ${PROJECT_SOURCE_DIR}/examples/cli/${part}.cu -o ${made}
      DEPENDS ${PROJECT_SOURCE_DIR}/examples/cli/${part}.cu DEPFILE ${made}.d COMMENT "PTX of ${part}.cu" VERBATIM)
    list(APPEND module_ptx ${made})
  endforeach()
  add_custom_target(slimtrim_cuda_module_ptx DEPENDS ${module_ptx})
  add_dependencies(slimtrim_cuda_emulated slimtrim_cuda_module_ptx)
  foreach(command IN ITEMS eval generate bench calibrate compress)
    set_tests_properties(cuda/program_${command} PROPERTIES ENVIRONMENT SLIMTRIM_PTX=${CMAKE_CURRENT_BINARY_DIR}/cuda/module_ptx)
  endforeach()
endif()

# Every kernel that ships, for the oldest GPU that runs them and for the newest that has code of its own.
file(GLOB sources CONFIGURE_DEPENDS ${slimtrim_cuda_tests}/instances/*.cu)
set(objects)
set(slimtrim_architectures 80 90a)
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  slimtrim_nvcc(${CMAKE_CURRENT_BINARY_DIR}/cuda/instances/${name}.o ${source})
  list(APPEND objects ${CMAKE_CURRENT_BINARY_DIR}/cuda/instances/${name}.o)
endforeach()
set(slimtrim_architectures 90a)
add_custom_target(tests_cuda_instances DEPENDS ${objects})
add_test(NAME cuda/compile_instances COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target tests_cuda_instances)
set_tests_properties(cuda/compile_instances PROPERTIES LABELS cuda TIMEOUT 3600 RESOURCE_LOCK build DEPENDS cuda/compile FIXTURES_SETUP cuda_instances)

# What the compiler made of asynchronous instructions, where the CUDA package has its disassembler.
add_test(NAME cuda/instructions COMMAND ${PROJECT_SOURCE_DIR}/bench/cuda/check_instructions.sh)
set_tests_properties(cuda/instructions PROPERTIES LABELS cuda TIMEOUT 600 DEPENDS cuda/compile_instances SKIP_RETURN_CODE 2
                     ENVIRONMENT "NVCC=${CMAKE_CUDA_COMPILER}")

# The examples of embedding, each as its own user would build it.
add_test(NAME cuda/compile_examples
  COMMAND ${CMAKE_COMMAND} -DCOMPILER=${CMAKE_CUDA_COMPILER} -DSOURCE=${PROJECT_SOURCE_DIR} -DBUILD=${CMAKE_CURRENT_BINARY_DIR}/cuda/examples
          -DHOST=${CMAKE_CXX_COMPILER} -P ${PROJECT_SOURCE_DIR}/examples/embed_cuda/build.cmake)
set_tests_properties(cuda/compile_examples PROPERTIES LABELS cuda TIMEOUT 900 DEPENDS cuda/compile FIXTURES_SETUP cuda_examples)
foreach(example IN ITEMS engine library)
  add_test(NAME gpu/embed_cuda_${example} COMMAND ${CMAKE_CURRENT_BINARY_DIR}/cuda/examples/${example})
  set_tests_properties(gpu/embed_cuda_${example} PROPERTIES LABELS gpu FIXTURES_REQUIRED cuda_examples SKIP_RETURN_CODE 77)
endforeach()

# The benchmarks, so that they keep compiling; bench/cuda/run.sh compiles and runs them on a machine with a device.
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/cuda/*.cu)
set(objects)
set(slimtrim_ptx ${CMAKE_CURRENT_BINARY_DIR}/cuda/bench_ptx)
file(MAKE_DIRECTORY ${slimtrim_ptx})
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  slimtrim_nvcc(${CMAKE_CURRENT_BINARY_DIR}/cuda/bench/${name}.o ${source})
  list(APPEND objects ${CMAKE_CURRENT_BINARY_DIR}/cuda/bench/${name}.o)
endforeach()
set(slimtrim_ptx)
set(program ${CMAKE_CURRENT_BINARY_DIR}/cuda/bench/bench_cuda)
add_custom_command(OUTPUT ${program}
  COMMAND ${CMAKE_CUDA_COMPILER} -o ${program} ${objects} -lcublas -lcusolver DEPENDS ${objects} VERBATIM)
add_custom_target(bench_cuda_device DEPENDS ${program})

# The paper's table, and the program's device against its host on the bundled model.
set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/bench/paper_table.o)
slimtrim_nvcc(${object} ${PROJECT_SOURCE_DIR}/bench/cuda/paper_table/main.cu)
set(table ${CMAKE_CURRENT_BINARY_DIR}/cuda/bench/paper_table)
add_custom_command(OUTPUT ${table}
  COMMAND ${CMAKE_CUDA_COMPILER} -o ${table} ${object} -lcublas -lcusolver DEPENDS ${object} VERBATIM)
add_custom_target(paper_table_device DEPENDS ${table})
add_dependencies(bench_cuda_device paper_table_device)
if(TARGET slimtrim_program)
  foreach(command IN ITEMS eval generate bench calibrate compress)
    add_test(NAME gpu/program_${command}
      COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:slimtrim_program> -DTASK=${command} -DTOKENS=1024 -DSEQUENCE=128
              -DMODEL=${PROJECT_SOURCE_DIR}/examples/models/tiny-mixtral -DWORK=${CMAKE_CURRENT_BINARY_DIR}/cuda/program_${command}
              -P ${slimtrim_cuda_tests}/program.cmake)
    set_tests_properties(gpu/program_${command} PROPERTIES LABELS gpu SKIP_REGULAR_EXPRESSION "skipped:")
  endforeach()
  add_test(NAME cuda/program_without_device
    COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:slimtrim_program> -DTASK=none
            -DMODEL=${PROJECT_SOURCE_DIR}/examples/models/tiny-mixtral -P ${slimtrim_cuda_tests}/program.cmake)
  set_tests_properties(cuda/program_without_device PROPERTIES LABELS cuda)
endif()

add_test(NAME cuda/compile_bench COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target bench_cuda_device)
set_tests_properties(cuda/compile_bench PROPERTIES LABELS cuda TIMEOUT 3600 RESOURCE_LOCK build DEPENDS cuda/compile)
set_tests_properties(cuda/compile_bench PROPERTIES FIXTURES_SETUP cuda_bench)

# The benchmarks' own code over their PTX, on a sixteenth of their sizes: minutes each, so under the label `slow`.
if(TARGET tests_cuda)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/cuda/*.cu)
  set_source_files_properties(${sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
  add_executable(bench_cuda_emulated EXCLUDE_FROM_ALL ${sources} ${emulator})
  target_link_libraries(bench_cuda_emulated PRIVATE slimtrim::io slimtrim_own ${CMAKE_DL_LIBS})
  target_include_directories(bench_cuda_emulated BEFORE PRIVATE ${slimtrim_cuda_tests}/emulator ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_options(bench_cuda_emulated PRIVATE -Wno-unknown-pragmas)
  add_test(NAME cuda/bench_emulated COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target bench_cuda_emulated)
  set_tests_properties(cuda/bench_emulated PROPERTIES LABELS slow TIMEOUT 1800 RESOURCE_LOCK build FIXTURES_SETUP cuda_bench_emulated DEPENDS cuda/compile_bench)
  foreach(case IN ITEMS rows products moe_layer gptq awq)
    add_test(NAME cuda/bench_${case} COMMAND bench_cuda_emulated ${CMAKE_CURRENT_BINARY_DIR}/cuda/bench_${case}.json dry ${case})
    set_tests_properties(cuda/bench_${case} PROPERTIES LABELS slow TIMEOUT 3600 FIXTURES_REQUIRED "cuda_bench;cuda_bench_emulated"
                         ENVIRONMENT "SLIMTRIM_BENCH_DRY=1;SLIMTRIM_PTX=${CMAKE_CURRENT_BINARY_DIR}/cuda/bench_ptx")
  endforeach()
endif()
