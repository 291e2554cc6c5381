// GGUF, the file format of llama.cpp: writing it, and reading it back.
#pragma once

#include <slimtrim/io/gguf_reader.hpp>
#include <slimtrim/io/gguf_type.hpp>
#include <slimtrim/io/gguf_value.hpp>
#include <slimtrim/io/gguf_writer.hpp>
