# The library's targets, one per component: slimtrim::slimtrim (floors 0 to 7, standard library only),
# slimtrim::eigen, slimtrim::xtensor, slimtrim::simd, slimtrim::io (floors 8 to 10), slimtrim::cuda.
# They carry include paths, the language level and dependencies; never flags.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

find_package(Threads REQUIRED)

function(slimtrim_component name)
  if(name STREQUAL "slimtrim")
    set(target slimtrim)
  else()
    set(target slimtrim_${name})
  endif()
  add_library(${target} INTERFACE)
  add_library(slimtrim::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_compile_features(${target} INTERFACE cxx_std_20)
  if(PROJECT_IS_TOP_LEVEL)
    target_include_directories(${target} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
  else()
    target_include_directories(${target} SYSTEM INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
  endif()
  target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  install(TARGETS ${target} EXPORT slimtrim_${name}_targets)
  install(EXPORT slimtrim_${name}_targets NAMESPACE slimtrim:: FILE slimtrim-${name}-targets.cmake
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/slimtrim)
endfunction()

slimtrim_component(slimtrim)
target_link_libraries(slimtrim INTERFACE Threads::Threads)

find_package(Eigen3 3.4 QUIET)
if(Eigen3_FOUND)
  slimtrim_component(eigen)
  target_link_libraries(slimtrim_eigen INTERFACE slimtrim Eigen3::Eigen)
endif()

find_package(xtensor QUIET)
find_package(xtensor-blas QUIET)
find_package(BLAS QUIET)
find_package(LAPACK QUIET)
if(xtensor_FOUND AND xtensor-blas_FOUND AND LAPACK_FOUND)
  slimtrim_component(xtensor)
  target_link_libraries(slimtrim_xtensor INTERFACE slimtrim xtensor xtensor-blas LAPACK::LAPACK BLAS::BLAS)
endif()

find_package(hwy QUIET CONFIG)
find_library(SLIMTRIM_HWY_LIBRARY hwy)
find_path(SLIMTRIM_HWY_INCLUDE hwy/highway.h)
if(SLIMTRIM_HWY_LIBRARY AND SLIMTRIM_HWY_INCLUDE)
  slimtrim_component(simd)
  target_link_libraries(slimtrim_simd INTERFACE slimtrim slimtrim_eigen hwy)
endif()

find_package(nlohmann_json 3.11 QUIET)
find_package(tomlplusplus QUIET)
find_path(SLIMTRIM_TOML_INCLUDE toml++/toml.h)
find_path(SLIMTRIM_PCRE2_INCLUDE pcre2.h)
find_library(SLIMTRIM_PCRE2_LIBRARY pcre2-8)
find_path(SLIMTRIM_UTF8PROC_INCLUDE utf8proc.h)
find_library(SLIMTRIM_UTF8PROC_LIBRARY utf8proc)
if(Eigen3_FOUND AND nlohmann_json_FOUND AND SLIMTRIM_TOML_INCLUDE AND SLIMTRIM_PCRE2_INCLUDE AND SLIMTRIM_PCRE2_LIBRARY
   AND SLIMTRIM_UTF8PROC_INCLUDE AND SLIMTRIM_UTF8PROC_LIBRARY)
  slimtrim_component(io)
  target_link_libraries(slimtrim_io INTERFACE slimtrim_eigen nlohmann_json::nlohmann_json pcre2-8 utf8proc)
endif()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/slimtrim DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/slimtrim-config.cmake.in
  ${PROJECT_BINARY_DIR}/slimtrim-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/slimtrim)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/slimtrim-config-version.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/slimtrim-config.cmake ${PROJECT_BINARY_DIR}/slimtrim-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/slimtrim)
