// safetensors files: everything to read and write one.
#pragma once

#include <slimtrim/io/dtype.hpp>               // dtype
#include <slimtrim/io/safetensors_header.hpp>  // tensor_description, tensor_info, read_safetensors_header
#include <slimtrim/io/safetensors_reader.hpp>  // safetensors_reader
#include <slimtrim/io/safetensors_writer.hpp>  // plan_safetensors, safetensors_writer
