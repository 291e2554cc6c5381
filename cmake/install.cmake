# The package: headers, one export file per component, find_package and pkg-config files. All of it is independent of
# the machine's architecture, and `cmake --install build --component slimtrim_development` installs nothing else.
include(CMakePackageConfigHelpers)
set(slimtrim_package_folder ${CMAKE_INSTALL_DATADIR}/cmake/slimtrim)

foreach(component IN LISTS slimtrim_built)
  set(target slimtrim_${component})
  if(component STREQUAL "slimtrim")
    set(target slimtrim)
  endif()
  install(TARGETS ${target} EXPORT slimtrim_${component}_targets COMPONENT slimtrim_development
          INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT slimtrim_${component}_targets NAMESPACE slimtrim:: FILE slimtrim-${component}-targets.cmake
          DESTINATION ${slimtrim_package_folder} COMPONENT slimtrim_development)
endforeach()

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/slimtrim DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        COMPONENT slimtrim_development)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/slimtrim-config.cmake.in
  ${PROJECT_BINARY_DIR}/slimtrim-config.cmake INSTALL_DESTINATION ${slimtrim_package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/slimtrim-config-version.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/slimtrim-config.cmake ${PROJECT_BINARY_DIR}/slimtrim-config-version.cmake
              ${PROJECT_SOURCE_DIR}/cmake/slimtrim-dependencies.cmake
        DESTINATION ${slimtrim_package_folder} COMPONENT slimtrim_development)

# Where the .pc file lies decides the prefix, so the tree may be moved.
file(RELATIVE_PATH slimtrim_pc_to_prefix /${CMAKE_INSTALL_DATADIR}/pkgconfig /)
configure_file(${PROJECT_SOURCE_DIR}/cmake/slimtrim.pc.in ${PROJECT_BINARY_DIR}/slimtrim.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/slimtrim.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig
        COMPONENT slimtrim_development)
