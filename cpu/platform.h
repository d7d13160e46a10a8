// What the processor can do.
#pragma once

#include "abi.h"

namespace bao {

// The best instruction set that this processor and its operating system run.
Isa detect_isa();

}  // namespace bao
