// A stand-in for libnccl: the calls that Bao makes, with the arguments and codes of nccl.h, between threads or processes of one machine.
//
// Ranks meet in shared memory, whose name is the unique id: each has a place for a piece of what it gives to a collective operation, and a mailbox for
// each peer. An operation goes on whenever its stream is worked on, and blocks the stream until its peers have come so far. A send is over when all of it
// has been received, so that two ranks which send first wait for each other, as they may with the real library.
//
// BAO_CUDA_EMULATION_NCCL_TIMEOUT_MS (30000): how long a rank waits for others before it fails, where the real library would wait for ever.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "../float_types.h"
#include "state.h"

using namespace bao;
using namespace bao::emulation;

namespace {

// Values of ncclResult_t and ncclDataType_t.
enum : int32_t { kOkay = 0, kUnhandledCudaError = 1, kSystemError = 2, kInvalidArgument = 4, kInvalidUsage = 5 };
enum : int32_t { kNcclInt32 = 2, kNcclFloat16 = 6, kNcclFloat32 = 7, kNcclBfloat16 = 9 };
constexpr int32_t kNcclSum = 0;
constexpr int32_t kLaunchFailure = 719;

constexpr int kMaxRanks = 8;
constexpr size_t kPieceBytes = 256 << 10, kMailBytes = 64 << 10;

struct UniqueId {
  char internal[128];
};

// What a rank says it does; all ranks must say the same.
struct Call {
  int32_t kind, type;
  uint64_t count;
  bool operator==(const Call& other) const { return kind == other.kind && type == other.type && count == other.count; }
};
enum : int32_t { kAllReduce, kAllGather, kReduceScatter };

struct Place {
  std::atomic<int32_t> joined;
  std::atomic<int64_t> process_and_device;
  // Pieces that the rank has laid down, and those of all ranks that it has read.
  std::atomic<uint64_t> posted, read;
  Call call;
  unsigned char piece[kPieceBytes];
};

struct Mailbox {
  std::atomic<uint64_t> posted, read;
  uint64_t bytes;
  unsigned char piece[kMailBytes];
};

// Starts as zeros, as new shared memory does.
struct Meeting {
  std::atomic<int32_t> num_ranks, num_joined;
  Place places[kMaxRanks];
  Mailbox mail[kMaxRanks][kMaxRanks];
};

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t timeout_ms() {
  const char* value = std::getenv("BAO_CUDA_EMULATION_NCCL_TIMEOUT_MS");
  return value ? std::atoll(value) : 30000;
}

size_t bytes_of(int32_t type) { return type == kNcclInt32 || type == kNcclFloat32 ? 4 : 2; }
bool is_type(int32_t type) { return type == kNcclInt32 || type == kNcclFloat32 || type == kNcclFloat16 || type == kNcclBfloat16; }

template <class T>
void add_as(void* to, const void* from, size_t count) {
  T* sum = static_cast<T*>(to);
  const T* other = static_cast<const T*>(from);
  for (size_t i = 0; i < count; i++) sum[i] = from_float<T>(to_float(sum[i]) + to_float(other[i]));
}

void add(int32_t type, void* to, const void* from, size_t count) {
  if (type == kNcclFloat32) add_as<float>(to, from, count);
  if (type == kNcclFloat16) add_as<Half>(to, from, count);
  if (type == kNcclBfloat16) add_as<BFloat16>(to, from, count);
  if (type == kNcclInt32) {
    for (size_t i = 0; i < count; i++) static_cast<int32_t*>(to)[i] += static_cast<const int32_t*>(from)[i];
  }
}

}  // namespace

struct EmulatedComm {
  Meeting* meeting;
  std::string name;
  int rank, num_ranks, device;
  // Pieces so far: of collective operations, and sent to and received from each peer.
  uint64_t pieces = 0, sent[kMaxRanks] = {}, received[kMaxRanks] = {};

  Place& own() { return meeting->places[rank]; }
  bool all_posted(uint64_t piece) const {
    return std::all_of(meeting->places, meeting->places + num_ranks, [&](const Place& p) { return p.posted >= piece; });
  }
  bool all_read(uint64_t piece) const {
    return std::all_of(meeting->places, meeting->places + num_ranks, [&](const Place& p) { return p.read >= piece; });
  }
};

namespace {

// Part of an operation: goes on as far as its peers let it.
class Transfer {
 public:
  virtual ~Transfer() = default;
  // kBlocked where it has to wait, else a cudaError_t.
  virtual int32_t advance() = 0;
};

class Collective : public Transfer {
 public:
  Collective(EmulatedComm& comm, Call call, const void* send, void* receive)
      : comm_(comm), call_(call), send_(static_cast<const unsigned char*>(send)), receive_(static_cast<unsigned char*>(receive)) {
    // Of what a rank gives: for a reduce-scatter that is a part for each rank.
    total_ = call.count * bytes_of(call.type) * (call.kind == kReduceScatter ? static_cast<size_t>(comm.num_ranks) : 1);
  }

  int32_t advance() override {
    while (done_ < total_) {
      const size_t bytes = std::min(kPieceBytes, total_ - done_);
      if (!posted_ && !post(bytes)) return kBlocked;
      if (!comm_.all_posted(comm_.pieces)) return kBlocked;
      if (!take(bytes)) return kLaunchFailure;
      comm_.own().read = comm_.pieces;
      posted_ = false;
      done_ += bytes;
    }
    return 0;
  }

 private:
  // False while somebody still reads the piece before.
  bool post(size_t bytes) {
    if (!comm_.all_read(comm_.pieces)) return false;
    Place& place = comm_.own();
    place.call = call_;
    std::memcpy(place.piece, send_ + done_, bytes);
    place.posted = ++comm_.pieces;
    posted_ = true;
    return true;
  }

  // Makes this rank's part of the result of everybody's piece; false where the ranks do different things.
  bool take(size_t bytes) {
    const Place* places = comm_.meeting->places;
    for (int r = 0; r < comm_.num_ranks; r++) {
      if (places[r].call == call_) continue;
      std::fprintf(stderr, "NCCL emulation: ranks %d and %d are not in the same operation\n", comm_.rank, r);
      return false;
    }
    if (call_.kind == kAllGather) {
      for (int r = 0; r < comm_.num_ranks; r++) std::memcpy(receive_ + static_cast<size_t>(r) * total_ + done_, places[r].piece, bytes);
      return true;
    }
    std::vector<unsigned char> sum(places[0].piece, places[0].piece + bytes);
    for (int r = 1; r < comm_.num_ranks; r++) add(call_.type, sum.data(), places[r].piece, bytes / bytes_of(call_.type));
    // The part of the result that this rank keeps, as bytes of the whole.
    const size_t part = call_.count * bytes_of(call_.type);
    const size_t begin = call_.kind == kReduceScatter ? static_cast<size_t>(comm_.rank) * part : 0;
    const size_t first = std::max(begin, done_), last = std::min(begin + part, done_ + bytes);
    if (first < last) std::memcpy(receive_ + (first - begin), sum.data() + (first - done_), last - first);
    return true;
  }

  EmulatedComm& comm_;
  Call call_;
  const unsigned char* send_;
  unsigned char* receive_;
  size_t total_, done_ = 0;
  bool posted_ = false;
};

class Send : public Transfer {
 public:
  Send(EmulatedComm& comm, const void* from, size_t bytes, int peer)
      : comm_(comm), from_(static_cast<const unsigned char*>(from)), bytes_(bytes), peer_(peer) {}

  int32_t advance() override {
    Mailbox& box = comm_.meeting->mail[comm_.rank][peer_];
    for (;;) {
      // What was sent must have been read, also at the end.
      if (box.read < comm_.sent[peer_]) return kBlocked;
      if (done_ == bytes_) return 0;
      box.bytes = std::min(kMailBytes, bytes_ - done_);
      std::memcpy(box.piece, from_ + done_, box.bytes);
      done_ += box.bytes;
      box.posted = ++comm_.sent[peer_];
    }
  }

 private:
  EmulatedComm& comm_;
  const unsigned char* from_;
  size_t bytes_, done_ = 0;
  int peer_;
};

class Receive : public Transfer {
 public:
  Receive(EmulatedComm& comm, void* to, size_t bytes, int peer)
      : comm_(comm), to_(static_cast<unsigned char*>(to)), bytes_(bytes), peer_(peer) {}

  int32_t advance() override {
    Mailbox& box = comm_.meeting->mail[peer_][comm_.rank];
    while (done_ < bytes_) {
      if (box.posted == comm_.received[peer_]) return kBlocked;
      if (box.bytes > bytes_ - done_) {
        std::fprintf(stderr, "NCCL emulation: rank %d sends more than rank %d receives\n", peer_, comm_.rank);
        return kLaunchFailure;
      }
      std::memcpy(to_ + done_, box.piece, box.bytes);
      done_ += box.bytes;
      box.read = ++comm_.received[peer_];
    }
    return 0;
  }

 private:
  EmulatedComm& comm_;
  unsigned char* to_;
  size_t bytes_, done_ = 0;
  int peer_;
};

using MakeTransfer = std::function<std::unique_ptr<Transfer>()>;

// A call within a group, or alone.
struct Pending {
  EmulatedComm* comm;
  cudaStream_t stream;
  MakeTransfer make;
};

thread_local int group_depth = 0;
thread_local std::vector<Pending> group;

// Transfers that go on side by side until all are over. Made anew each time the operation begins: a graph runs it again and again.
class Running {
 public:
  explicit Running(std::vector<MakeTransfer> makers) : makers_(std::move(makers)) {}

  int32_t advance() {
    if (transfers_.empty()) {
      for (const MakeTransfer& make : makers_) transfers_.push_back(make());
      deadline_ = now_ms() + timeout_ms();
    }
    bool blocked = false;
    for (auto& transfer : transfers_) {
      const int32_t code = transfer ? transfer->advance() : 0;
      if (code == kBlocked) blocked = true;
      else if (code != 0) return end(code);
      else transfer.reset();
    }
    if (!blocked) return end(0);
    if (now_ms() <= deadline_) return kBlocked;
    std::fprintf(stderr, "NCCL emulation: an operation waits for ranks that do not come\n");
    return end(kLaunchFailure);
  }

 private:
  int32_t end(int32_t code) {
    transfers_.clear();
    return code;
  }

  std::vector<MakeTransfer> makers_;
  std::vector<std::unique_ptr<Transfer>> transfers_;
  int64_t deadline_ = 0;
};

int32_t launch(const std::vector<Pending>& calls) {
  std::vector<cudaStream_t> streams;
  for (const Pending& call : calls) {
    if (std::find(streams.begin(), streams.end(), call.stream) == streams.end()) streams.push_back(call.stream);
  }
  for (cudaStream_t stream : streams) {
    std::vector<MakeTransfer> makers;
    for (const Pending& call : calls) {
      if (call.stream == stream) makers.push_back(call.make);
    }
    auto running = std::make_shared<Running>(std::move(makers));
    if (enqueue(stream, "nccl", [running] { return running->advance(); }) != 0) return kUnhandledCudaError;
  }
  return kOkay;
}

int32_t submit(EmulatedComm* comm, cudaStream_t stream, MakeTransfer make) {
  if (!stream || stream->device != comm->device) return kInvalidArgument;
  if (group_depth == 0) return launch({{comm, stream, std::move(make)}});
  group.push_back({comm, stream, std::move(make)});
  return kOkay;
}

bool on_device(const void* address, size_t bytes) {
  const Allocation allocation = find_allocation(address);
  return bytes == 0 || (allocation.end != 0 && reinterpret_cast<uintptr_t>(address) + bytes <= allocation.end);
}

int32_t submit_collective(EmulatedComm* comm, Call call, const void* send, void* receive, size_t send_count, size_t receive_count,
                          cudaStream_t stream) {
  if (!comm || !is_type(call.type)) return kInvalidArgument;
  if (!on_device(send, send_count * bytes_of(call.type)) || !on_device(receive, receive_count * bytes_of(call.type))) return kInvalidArgument;
  return submit(comm, stream, [=] { return std::make_unique<Collective>(*comm, call, send, receive); });
}

// False where the others did not come in time.
bool wait_for(const std::atomic<int32_t>& value, int32_t wanted) {
  const int64_t end = now_ms() + timeout_ms();
  while (value < wanted) {
    if (now_ms() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

Meeting* open_meeting(const std::string& name) {
  const int file = shm_open(name.c_str(), O_RDWR | O_CREAT, 0600);
  if (file < 0) return nullptr;
  void* memory = ftruncate(file, sizeof(Meeting)) == 0
                     ? mmap(nullptr, sizeof(Meeting), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                     : MAP_FAILED;
  close(file);
  return memory == MAP_FAILED ? nullptr : static_cast<Meeting*>(memory);
}

// What is wrong with this rank beside the others; 0 where nothing is.
int32_t join(Meeting& meeting, int num_ranks, int rank, int device) {
  int32_t agreed = 0;
  if (!meeting.num_ranks.compare_exchange_strong(agreed, num_ranks) && agreed != num_ranks) return kInvalidArgument;
  Place& own = meeting.places[rank];
  if (own.joined.exchange(1) != 0) return kInvalidUsage;
  // A device has one rank of a communicator.
  own.process_and_device = (static_cast<int64_t>(getpid()) << 8) + device + 1;
  meeting.num_joined++;
  if (!wait_for(meeting.num_joined, num_ranks)) return kSystemError;
  for (int r = 0; r < num_ranks; r++) {
    if (r != rank && meeting.places[r].process_and_device == own.process_and_device) return kInvalidUsage;
  }
  return kOkay;
}

}  // namespace

extern "C" int32_t cudaGetDevice(int* device);

EXPORT int32_t ncclGetVersion(int* version) {
  if (const int32_t code = injected_failure("ncclGetVersion")) return code;
  *version = static_cast<int>(stand_in_version("NCCL", 22700));
  return kOkay;
}

EXPORT int32_t ncclGetUniqueId(UniqueId* id) {
  if (const int32_t code = injected_failure("ncclGetUniqueId")) return code;
  static std::atomic<int> count{0};
  *id = {};
  std::snprintf(id->internal, sizeof(id->internal), "/bao-nccl-%d-%d-%lld", getpid(), count++, static_cast<long long>(now_ms()));
  return kOkay;
}

EXPORT const char* ncclGetErrorString(int32_t code) {
  switch (code) {
    case kOkay:
      return "no error";
    case kUnhandledCudaError:
      return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case kSystemError:
      return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case kInvalidArgument:
      return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case kInvalidUsage:
      return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    default:
      return "unknown result code";
  }
}

EXPORT int32_t ncclCommInitRank(EmulatedComm** comm, int num_ranks, UniqueId id, int rank) {
  if (const int32_t code = injected_failure("ncclCommInitRank")) return code;
  *comm = nullptr;
  if (num_ranks <= 0 || num_ranks > kMaxRanks || rank < 0 || rank >= num_ranks || id.internal[0] != '/') return kInvalidArgument;
  int device = 0;
  if (cudaGetDevice(&device) != 0) return kUnhandledCudaError;
  const std::string name(id.internal, strnlen(id.internal, sizeof(id.internal)));
  Meeting* meeting = open_meeting(name);
  if (!meeting) return kSystemError;
  const int32_t code = join(*meeting, num_ranks, rank, device);
  // All that come have come: the name is of no use any more.
  shm_unlink(name.c_str());
  if (code != kOkay) {
    munmap(meeting, sizeof(Meeting));
    return code;
  }
  *comm = new EmulatedComm{meeting, name, rank, num_ranks, device};
  return kOkay;
}

// Its operations must be done.
EXPORT int32_t ncclCommDestroy(EmulatedComm* comm) {
  if (const int32_t code = injected_failure("ncclCommDestroy")) return code;
  if (!comm) return kInvalidArgument;
  munmap(comm->meeting, sizeof(Meeting));
  delete comm;
  return kOkay;
}

EXPORT int32_t ncclGroupStart() {
  if (const int32_t code = injected_failure("ncclGroupStart")) return code;
  group_depth++;
  return kOkay;
}

EXPORT int32_t ncclGroupEnd() {
  if (const int32_t code = injected_failure("ncclGroupEnd")) return code;
  if (group_depth == 0) return kInvalidUsage;
  if (--group_depth > 0) return kOkay;
  const std::vector<Pending> calls = std::move(group);
  group.clear();
  return launch(calls);
}

EXPORT int32_t ncclAllReduce(const void* send, void* receive, size_t count, int32_t type, int32_t op, EmulatedComm* comm, cudaStream_t stream) {
  if (const int32_t code = injected_failure("ncclAllReduce")) return code;
  if (op != kNcclSum) return kInvalidArgument;
  return submit_collective(comm, {kAllReduce, type, count}, send, receive, count, count, stream);
}

EXPORT int32_t ncclAllGather(const void* send, void* receive, size_t count, int32_t type, EmulatedComm* comm, cudaStream_t stream) {
  if (const int32_t code = injected_failure("ncclAllGather")) return code;
  const size_t all = comm ? count * static_cast<size_t>(comm->num_ranks) : 0;
  return submit_collective(comm, {kAllGather, type, count}, send, receive, count, all, stream);
}

EXPORT int32_t ncclReduceScatter(const void* send, void* receive, size_t count, int32_t type, int32_t op, EmulatedComm* comm,
                                 cudaStream_t stream) {
  if (const int32_t code = injected_failure("ncclReduceScatter")) return code;
  if (op != kNcclSum) return kInvalidArgument;
  const size_t all = comm ? count * static_cast<size_t>(comm->num_ranks) : 0;
  return submit_collective(comm, {kReduceScatter, type, count}, send, receive, all, count, stream);
}

EXPORT int32_t ncclSend(const void* from, size_t count, int32_t type, int peer, EmulatedComm* comm, cudaStream_t stream) {
  if (const int32_t code = injected_failure("ncclSend")) return code;
  if (!comm || !is_type(type) || peer < 0 || peer >= comm->num_ranks || !on_device(from, count * bytes_of(type))) return kInvalidArgument;
  return submit(comm, stream, [=] { return std::make_unique<Send>(*comm, from, count * bytes_of(type), peer); });
}

EXPORT int32_t ncclRecv(void* to, size_t count, int32_t type, int peer, EmulatedComm* comm, cudaStream_t stream) {
  if (const int32_t code = injected_failure("ncclRecv")) return code;
  if (!comm || !is_type(type) || peer < 0 || peer >= comm->num_ranks || !on_device(to, count * bytes_of(type))) return kInvalidArgument;
  return submit(comm, stream, [=] { return std::make_unique<Receive>(*comm, to, count * bytes_of(type), peer); });
}
