// The functions that code compiled with -fsanitize=thread calls before it loads and stores. They lead to the checker; nothing of the
// sanitizer's own library is linked. Names: compiler-rt, tsan_interface.h. Those with a size assume that the address is a multiple of it.
#include <cstring>

#include "checker.h"

using bao::emulation::Access;

#define HOOK extern "C" __attribute__((visibility("default")))

namespace {

void check(const void* address, size_t bytes, Access access, size_t alignment) {
  auto& checker = bao::emulation::checker();
  if (checker.active() && bytes > 0) checker.access(address, bytes, access, alignment);
}

}  // namespace

#define HOOKS_OF_SIZE(bytes)                                                                                       \
  HOOK void __tsan_read##bytes(void* address) { check(address, bytes, Access::kRead, bytes); }                     \
  HOOK void __tsan_write##bytes(void* address) { check(address, bytes, Access::kWrite, bytes); }                   \
  HOOK void __tsan_unaligned_read##bytes(void* address) { check(address, bytes, Access::kRead, 1); }               \
  HOOK void __tsan_unaligned_write##bytes(void* address) { check(address, bytes, Access::kWrite, 1); }

HOOKS_OF_SIZE(1)
HOOKS_OF_SIZE(2)
HOOKS_OF_SIZE(4)
HOOKS_OF_SIZE(8)
HOOKS_OF_SIZE(16)

HOOK void __tsan_read_range(void* address, size_t bytes) { check(address, bytes, Access::kRead, 1); }
HOOK void __tsan_write_range(void* address, size_t bytes) { check(address, bytes, Access::kWrite, 1); }
HOOK void __tsan_vptr_read(void**) {}
HOOK void __tsan_vptr_update(void**, void*) {}
HOOK void __tsan_func_entry(void*) {}
HOOK void __tsan_func_exit() {}
HOOK void __tsan_init() {}

HOOK void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  check(from, bytes, Access::kRead, 1);
  check(to, bytes, Access::kWrite, 1);
  return std::memcpy(to, from, bytes);
}

HOOK void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  check(from, bytes, Access::kRead, 1);
  check(to, bytes, Access::kWrite, 1);
  return std::memmove(to, from, bytes);
}

HOOK void* __tsan_memset(void* to, int value, size_t bytes) {
  check(to, bytes, Access::kWrite, 1);
  return std::memset(to, value, bytes);
}

// g++ leaves calls of these as they are; the kernels' library is linked with --wrap. (What it expands itself, copies of some ten bytes and more whose
// number is a constant, is not seen. Assignments of structures are.)
HOOK void* __wrap_memcpy(void* to, const void* from, size_t bytes) { return __tsan_memcpy(to, from, bytes); }
HOOK void* __wrap_memmove(void* to, const void* from, size_t bytes) { return __tsan_memmove(to, from, bytes); }
HOOK void* __wrap_memset(void* to, int value, size_t bytes) { return __tsan_memset(to, value, bytes); }
