// What this machine can do at most: how fast a number of threads read memory, and how fast they multiply. For benchmarks only.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "abi.h"
#include "kernels.h"
#include "platform.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Runs work(thread) on that many threads at once, the caller among them; seconds from the moment that all are there until the
// last has ended.
template <class Work>
double run_together(int32_t threads, Work work) {
  std::atomic<int32_t> arrived{0};
  auto meet = [&] {
    arrived.fetch_add(1);
    while (arrived.load(std::memory_order_relaxed) < threads) std::this_thread::yield();
  };
  std::vector<std::thread> others;
  for (int32_t t = 1; t < threads; t++) {
    others.emplace_back([&, t] {
      meet();
      work(t);
    });
  }
  meet();
  const Clock::time_point start = Clock::now();
  work(0);
  for (std::thread& other : others) other.join();
  return seconds_since(start);
}

typedef uint64_t Words __attribute__((vector_size(16)));

// Eight independent sums, so that no load waits for the one before; and lines asked for far ahead, without which a core has too few
// requests under way (on Sapphire Rapids it reads a quarter less).
uint64_t sum(const char* data, int64_t bytes) {
  constexpr int kSums = 8;
  constexpr int64_t kStep = kSums * static_cast<int64_t>(sizeof(Words));
  constexpr int64_t kFarBytes = 16384, kNearBytes = 2048;
  Words sums[kSums] = {};
  for (int64_t at = 0; at + kStep <= bytes; at += kStep) {
    for (int64_t line = 0; line < kStep; line += 64) {
      __builtin_prefetch(data + at + kFarBytes + line, 0, 2);
      __builtin_prefetch(data + at + kNearBytes + line, 0, 3);
    }
    for (int i = 0; i < kSums; i++) {
      Words words;
      std::memcpy(&words, data + at + i * static_cast<int64_t>(sizeof(Words)), sizeof(Words));
      sums[i] += words;
    }
  }
  Words total = sums[0];
  for (int i = 1; i < kSums; i++) total += sums[i];
  return total[0] + total[1];
}

std::atomic<uint64_t> sink;

// Independent chains of the machine's multiply-add: more than its latency times its issue width, fewer than there are registers.
// Variables with names, not an array: an array would live in memory.
constexpr int kChains = 12;
constexpr int64_t kRounds = 1 << 16;
#define BAO_EACH_CHAIN(DO) DO(c0) DO(c1) DO(c2) DO(c3) DO(c4) DO(c5) DO(c6) DO(c7) DO(c8) DO(c9) DO(c10) DO(c11)

// kRounds rounds of STEP on every chain; returns their floating point operations. STEP is opaque to the compiler (asm), so that
// no round is folded away.
#define BAO_MULTIPLY(V, START, STEP, OPERATIONS)             \
  V c0 = START, c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0;           \
  V c6 = c0, c7 = c0, c8 = c0, c9 = c0, c10 = c0, c11 = c0;            \
  for (int64_t round = 0; round < kRounds; round++) {                  \
    BAO_EACH_CHAIN(STEP)                                               \
  }                                                                    \
  return static_cast<double>(kRounds) * kChains * (OPERATIONS)

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) double multiply_avx2() {
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(1e-3f);
#define BAO_STEP(c) asm volatile("vfmadd132ps %2, %1, %0" : "+x"(c) : "x"(b), "x"(a));
  BAO_MULTIPLY(__m256, _mm256_set1_ps(1.0f), BAO_STEP, 8 * 2);
#undef BAO_STEP
}

__attribute__((target("avx512f"))) double multiply_avx512() {
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(1e-3f);
#define BAO_STEP(c) asm volatile("vfmadd132ps %2, %1, %0" : "+v"(c) : "v"(b), "v"(a));
  BAO_MULTIPLY(__m512, _mm512_set1_ps(1.0f), BAO_STEP, 16 * 2);
#undef BAO_STEP
}

__attribute__((target("avx512f,avx512bf16"))) double multiply_avx512_bf16() {
  const __m512i a = _mm512_set1_epi16(0x3c00), b = a;
#define BAO_STEP(c) asm volatile("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(b), "v"(a));
  BAO_MULTIPLY(__m512, _mm512_set1_ps(1.0f), BAO_STEP, 32 * 2);
#undef BAO_STEP
}

// Older compilers, which don't know halves and AMX, make no kernels of them either.
#if defined(__clang__) ? __clang_major__ >= 14 : __GNUC__ >= 12
// (A register that was cleared and never loaded would be multiplied faster than others; what stands between the products is in kernels/linear/matrix_tile.h,
// too.)
double multiply_amx() {
  constexpr int64_t kProducts = 4;
  alignas(64) struct {
    uint8_t palette = 1, reserved[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  } config;
  alignas(64) static const char numbers[1024] = {};
  asm volatile("ldtilecfg %0" : : "m"(config));
  asm volatile("tileloadd (%0,%1,1), %%tmm4\n\ttileloadd (%0,%1,1), %%tmm5" : : "r"(numbers), "r"(int64_t{64}) : "memory");
#define BAO_STEP(sums) asm volatile("tdpbf16ps %%tmm5, %%tmm4, %%tmm" #sums "\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop" : :);
  for (int64_t round = 0; round < kRounds / 16; round++) {
    BAO_STEP(0) BAO_STEP(1) BAO_STEP(2) BAO_STEP(3)
  }
#undef BAO_STEP
  asm volatile("tilerelease");
  return static_cast<double>(kRounds / 16 * kProducts) * (16 * 16 * 32 * 2);
}

__attribute__((target("avx512f"))) double multiply_avx512_fp16() {
  const __m512i a = _mm512_set1_epi16(0x3bff), b = _mm512_set1_epi16(0x1400);
#define BAO_STEP(c) asm volatile("vfmadd132ph %2, %1, %0" : "+v"(c) : "v"(b), "v"(a));
  BAO_MULTIPLY(__m512i, _mm512_set1_epi16(0x3c00), BAO_STEP, 32 * 2);
#undef BAO_STEP
}
#else
double multiply_amx() { return multiply_avx512(); }
double multiply_avx512_fp16() { return multiply_avx512(); }
#endif
#endif

typedef float Floats __attribute__((vector_size(16)));

double multiply_portable() {
  const Floats a = Floats{} + 0.999f, b = Floats{} + 1e-3f;
#if defined(__x86_64__)
#define BAO_STEP(c) c = c * a + b; asm volatile("" : "+x"(c));
#elif defined(__ARM_NEON)
#define BAO_STEP(c) asm volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(c) : "w"(b), "w"(a));
#else
#define BAO_STEP(c) c = c * a + b; asm volatile("" : "+m"(c));
#endif
  BAO_MULTIPLY(Floats, Floats{} + 1.0f, BAO_STEP, 4 * 2);
#undef BAO_STEP
}

double multiply(int32_t isa) {
#if defined(__x86_64__)
  if (isa == bao::kAvx512Amx) return multiply_amx();
  if (isa == bao::kAvx512Fp16) return multiply_avx512_fp16();
  if (isa == bao::kAvx512Bf16) return multiply_avx512_bf16();
  if (isa >= bao::kAvx512) return multiply_avx512();
  if (isa == bao::kAvx2) return multiply_avx2();
#endif
  static_cast<void>(isa);
  return multiply_portable();
}

}  // namespace

// Bytes per second that `threads` threads read from `data` together, each its own part, `passes` times over; 0 for arguments
// that can't be right. The memory must have been written and be much larger than the last cache.
BAO_EXPORT double bao_probe_read(const void* data, int64_t bytes, int32_t threads, int32_t passes) {
  if (!data || threads < 1 || threads > 4096 || passes < 1 || bytes < threads * int64_t{4096}) return 0;
  const int64_t part = bytes / threads & ~int64_t{4095};
  const double seconds = run_together(threads, [&](int32_t thread) {
    const char* begin = static_cast<const char*>(data) + thread * part;
    for (int32_t pass = 0; pass < passes; pass++) sink += sum(begin, part);
  });
  return static_cast<double>(part) * threads * passes / seconds;
}

// Floating point operations per second (a multiply-add is two) of `threads` threads together, in registers alone, with what an
// instruction set multiplies bfloat16 weights with (negative or too high for this machine: the fastest here), over at least
// `seconds`; 0 for arguments that can't be right.
BAO_EXPORT double bao_probe_multiply(int32_t isa, int32_t threads, double seconds) {
  if (threads < 1 || threads > 4096 || !(seconds > 0)) return 0;
  const int32_t wanted = isa < 0 || isa > bao::detect_isa() ? bao::kernel_table(-1)->isa : isa;
  std::vector<double> operations(static_cast<size_t>(threads));
  const double elapsed = run_together(threads, [&](int32_t thread) {
    const Clock::time_point start = Clock::now();
    double done = 0;
    while (seconds_since(start) < seconds) done += multiply(wanted);
    operations[static_cast<size_t>(thread)] = done;
  });
  double total = 0;
  for (double done : operations) total += done;
  return total / elapsed;
}
