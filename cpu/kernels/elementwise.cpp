// Activations and other functions of single elements.
#include "simd.h"

namespace bao::BAO_ISA {
namespace {

BAO_INLINE F silu(F x) { return x / (1.0f + exp(-x)); }

BAO_INLINE F gelu_tanh(F x) {
  const F inner = 0.7978845608f * fma(0.044715f * x * x, x, x);
  return 0.5f * x * (1.0f + tanh(inner));
}

// erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
BAO_INLINE F gelu_erf(F x) {
  const F z = x * 0.7071067812f;
  const F magnitude = max(z, -z);
  const F t = 1.0f / fma(magnitude, set1(0.3275911f), set1(1.0f));
  F p = set1(1.061405429f);
  p = fma(p, t, set1(-1.453152027f));
  p = fma(p, t, set1(1.421413741f));
  p = fma(p, t, set1(-0.284496736f));
  p = fma(p, t, set1(0.254829592f));
  const F tail = p * t * exp(-magnitude * magnitude);
  // 1 + erf(z), without cancellation where z is negative.
  return 0.5f * x * (z < F{} ? tail : 2.0f - tail);
}

template <class Activation>
BAO_INLINE void act_and_mul_row(const float* gate, const float* up, float* out, int64_t n, Activation act) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, act(load(gate + i)) * load(up + i));
  if (i < n) store_n(out + i, act(load_n(gate + i, n - i)) * load_n(up + i, n - i), n - i);
}

template <class Activation>
BAO_INLINE void activate_all(const float* x, float* out, int64_t n, Activation act) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, act(load(x + i)));
  if (i < n) store_n(out + i, act(load_n(x + i, n - i)), n - i);
}

// (min(gate, limit) * sigmoid(alpha * min(gate, limit))) * (clamp(up, -limit, limit) + 1)
BAO_INLINE F swigluoai(F gate, F up, F alpha, F limit) {
  gate = min(gate, limit);
  up = min(max(up, -limit), limit);
  return gate / (1.0f + exp(-alpha * gate)) * (up + 1.0f);
}

}  // namespace

static void act_and_mul(const ActAndMulArgs& a, const ChunkContext& c) {
  const int64_t column_chunks = ceil_div(a.n, a.columns_per_chunk);
  const int64_t row_begin = c.chunk / column_chunks * a.rows_per_chunk;
  const int64_t row_end = min(a.rows, row_begin + a.rows_per_chunk);
  const int64_t column = c.chunk % column_chunks * a.columns_per_chunk;
  const int64_t columns = min(a.columns_per_chunk, a.n - column);
  for (int64_t row = row_begin; row < row_end; row++) {
    const float* gate = a.gate_up + row * 2 * a.n + column;
    float* out = a.out + row * a.n + column;
    if (a.kind == 0) {
      act_and_mul_row(gate, gate + a.n, out, columns, [](F x) { return silu(x); });
    } else if (a.kind == 1) {
      act_and_mul_row(gate, gate + a.n, out, columns, [](F x) { return gelu_tanh(x); });
    } else {
      act_and_mul_row(gate, gate + a.n, out, columns, [](F x) { return gelu_erf(x); });
    }
  }
}

static void activate(const ActivateArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kElementwiseGrain;
  const int64_t n = min(kElementwiseGrain, a.count - begin);
  const float* x = a.x + begin;
  float* out = a.out + begin;
  switch (a.kind) {
    case 0:
      return activate_all(x, out, n, [](F v) { return silu(v); });
    case 1:
      return activate_all(x, out, n, [](F v) { return gelu_tanh(v); });
    case 2:
      return activate_all(x, out, n, [](F v) { return gelu_erf(v); });
    case 3:
      return activate_all(x, out, n, [](F v) { return tanh(v); });
    default:
      return activate_all(x, out, n, [](F v) { return max(v, F{}); });
  }
}

static void mean_rows(const MeanRowsArgs& a, const ChunkContext& c) {
  const int64_t first = a.spans[2 * c.chunk], count = a.spans[2 * c.chunk + 1];
  float* out = a.out + static_cast<int64_t>(c.chunk) * a.n;
  const float divisor = static_cast<float>(max(1, count));
  int64_t i = 0;
  for (; i + kLanes <= a.n; i += kLanes) {
    F total{};
    for (int64_t row = first; row < first + count; row++) total += load(a.x + row * a.n + i);
    store(out + i, total / divisor);
  }
  for (; i < a.n; i++) {
    float total = 0;
    for (int64_t row = first; row < first + count; row++) total += a.x[row * a.n + i];
    out[i] = total / divisor;
  }
}

static void swigluoai_and_mul(const SwigluOaiArgs& a, const ChunkContext& c) {
  const int64_t row_begin = static_cast<int64_t>(c.chunk) * a.rows_per_chunk;
  const int64_t row_end = min(a.rows, row_begin + a.rows_per_chunk);
  const F alpha = set1(a.alpha), limit = set1(a.limit);
  for (int64_t row = row_begin; row < row_end; row++) {
    const float* gate = a.gate_up + row * 2 * a.n;
    const float* up = gate + a.n;
    float* out = a.out + row * a.n;
    int64_t i = 0;
    for (; i + kLanes <= a.n; i += kLanes) store(out + i, swigluoai(load(gate + i), load(up + i), alpha, limit));
    const int64_t rest = a.n - i;
    if (rest > 0) store_n(out + i, swigluoai(load_n(gate + i, rest), load_n(up + i, rest), alpha, limit), rest);
  }
}

static void add(const AddArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kElementwiseGrain;
  const int64_t end = min(a.count, begin + kElementwiseGrain);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(a.out + i, load(a.x + i) + load(a.y + i));
  if (i < end) store_n(a.out + i, load_n(a.x + i, end - i) + load_n(a.y + i, end - i), end - i);
}

static void soft_cap(const SoftCapArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kElementwiseGrain;
  const int64_t end = min(a.count, begin + kElementwiseGrain);
  for (int64_t i = begin; i < end; i += kLanes) {
    const int64_t n = min(kLanes, end - i);
    store_n(a.x + i, a.cap * tanh(load_n(a.x + i, n) / a.cap), n);
  }
}

void use_elementwise(KernelTable& table) {
  table.act_and_mul = act_and_mul;
  table.activate = activate;
  table.mean_rows = mean_rows;
  table.swigluoai_and_mul = swigluoai_and_mul;
  table.add = add;
  table.soft_cap = soft_cap;
}

}  // namespace bao::BAO_ISA
