// What a chunk of a task may know and use.
#pragma once

#include "abi.h"

namespace bao {

struct ChunkContext {
  int32_t chunk;
  int32_t num_chunks;
  // 0 (the caller) to num_threads - 1.
  int32_t thread;
  int32_t num_threads;
  // This thread's own scratch, Stream::reserve's `scratch_bytes`, 64-byte aligned.
  void* scratch;
  // Shared by all chunks, Stream::reserve's `workspace_bytes`, 64-byte aligned; keeps its contents from one task to the next
  // of the same op.
  void* workspace;
  // 0 when the task starts: for chunks that share out work whose amount was not known when the task was enqueued.
  int64_t* counter;

  // Where chunks share out items that are numbered from 0 on: chunk i begins with item i, so that none takes its second before all have
  // a first, and goes on with what this gives.
  __attribute__((always_inline)) int64_t next_item() const { return num_chunks + __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }
};

}  // namespace bao
