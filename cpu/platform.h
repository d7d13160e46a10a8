// What the processor can do.
#pragma once

#include <pthread.h>

#include "abi.h"

namespace bao {

// The highest instruction set that this processor and its operating system run.
Isa detect_isa();

// The one whose kernels are fastest here, of those up to `highest`.
Isa preferred_isa(Isa highest);

// The size of a core's second-level cache, or a common one where the system doesn't tell.
int64_t second_level_cache_bytes();

// Lets a thread run on these processors only; false where that can't be had.
bool bind_thread(pthread_t thread, const int32_t* processors, int32_t count);

}  // namespace bao
