// What the processor can do.
#pragma once

#include "abi.h"

namespace bao {

// The highest instruction set that this processor and its operating system run.
Isa detect_isa();

// The one whose kernels are fastest here.
Isa preferred_isa();

}  // namespace bao
