// A libnccl that does nothing but write down what it was called with, and refuses to send to a rank below 0.
#include <cstdint>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

struct UniqueId {
  char internal[128];
};

static int64_t calls[64];
static int num_calls = 0;

template <class... Values>
static int32_t note(Values... values) {
  num_calls = 0;
  ((calls[num_calls++] = (int64_t)values), ...);
  return 0;
}

EXPORT const int64_t* noted() { return calls; }

EXPORT int32_t ncclGetVersion(int* version) {
  *version = 22700;
  return 0;
}
EXPORT int32_t ncclGetUniqueId(UniqueId* id) {
  for (int i = 0; i < 128; i++) id->internal[i] = static_cast<char>(i + 1);
  return 0;
}
EXPORT const char* ncclGetErrorString(int32_t code) { return code == 4 ? "invalid argument" : "no error"; }
EXPORT int32_t ncclCommInitRank(void** comm, int ranks, UniqueId id, int rank) {
  *comm = reinterpret_cast<void*>(uintptr_t{0x7000});
  int64_t sum = 0;
  for (int i = 0; i < 128; i++) sum += (i + 1) * id.internal[i];
  return note(ranks, rank, sum);
}
EXPORT int32_t ncclCommDestroy(void* comm) { return note(comm); }
EXPORT int32_t ncclGroupStart() { return note(1); }
EXPORT int32_t ncclGroupEnd() { return note(2); }
EXPORT int32_t ncclAllReduce(const void* s, void* r, size_t n, int type, int op, void* comm, void* stream) {
  return note(s, r, n, type, op, comm, stream);
}
EXPORT int32_t ncclAllGather(const void* s, void* r, size_t n, int type, void* comm, void* stream) {
  return note(s, r, n, type, comm, stream);
}
EXPORT int32_t ncclReduceScatter(const void* s, void* r, size_t n, int type, int op, void* comm, void* stream) {
  return note(s, r, n, type, op, comm, stream);
}
EXPORT int32_t ncclSend(const void* s, size_t n, int type, int peer, void* comm, void* stream) {
  note(s, n, type, peer, comm, stream);
  return peer < 0 ? 4 : 0;
}
EXPORT int32_t ncclRecv(void* r, size_t n, int type, int peer, void* comm, void* stream) {
  return note(r, n, type, peer, comm, stream);
}
