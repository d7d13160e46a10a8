// Sums over k are taken as small_linear of cuda/linear.cu takes them: 32 lanes with eight consecutive k each in turn, then the lanes in pairs. So a
// row has the same bits whichever of the two computes it, and batches don't show.
#include "gemm.h"

#include <algorithm>

namespace bao::emulation {

namespace {

constexpr int64_t kLanes = 32, kChunk = 8, kRound = kLanes * kChunk;

int64_t padded(int64_t k) { return (k + kRound - 1) / kRound * kRound; }

// `count` vectors along k, zero-padded, so ordered that the lanes' next elements lie side by side.
std::vector<float> along_k(const Matrix& matrix, int64_t batch, int64_t count, int64_t k, bool k_is_row) {
  const char* data = matrix.data + batch * matrix.stride * bytes_of(matrix.type);
  std::vector<float> values(static_cast<size_t>(count * padded(k)));
  for (int64_t i = 0; i < count; i++) {
    for (int64_t p = 0; p < k; p++) {
      const int64_t at = p / kRound * kRound + p % kChunk * kLanes + p / kChunk % kLanes;
      const int64_t element = k_is_row ? p + i * matrix.ld : i + p * matrix.ld;
      values[static_cast<size_t>(i * padded(k) + at)] = read_element(data, matrix.type, element);
    }
  }
  return values;
}

float dot(const float* a, const float* b, int64_t length) {
  float lanes[kLanes] = {};
  for (int64_t p = 0; p < length; p += kLanes) {
    for (int64_t lane = 0; lane < kLanes; lane++) lanes[lane] += a[p + lane] * b[p + lane];
  }
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

void store(const Matrix& d, int64_t i, float value) {
  char* at = const_cast<char*>(d.data) + i * bytes_of(d.type);
  if (d.type == kR32F) *reinterpret_cast<float*>(at) = value;
  if (d.type == kR16F) *reinterpret_cast<Half*>(at) = from_float<Half>(value);
  if (d.type == kR16BF) *reinterpret_cast<BFloat16*>(at) = from_float<BFloat16>(value);
}

// Elements that a column-major matrix spans.
int64_t span(int64_t rows, int64_t columns, int64_t ld) { return rows == 0 || columns == 0 ? 0 : (columns - 1) * ld + rows; }

bool in_device_memory(const char* data, int64_t bytes) {
  const Allocation allocation = find_allocation(data);
  const auto end = reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes);
  return bytes == 0 || (allocation.end != 0 && end <= allocation.end);
}

bool in_device_memory(const Matrix& matrix, int64_t rows, int64_t columns, int64_t batch) {
  const int64_t elements = span(rows, columns, matrix.ld);
  if (elements == 0 || batch == 0) return true;
  return in_device_memory(matrix.data, ((batch - 1) * matrix.stride + elements) * bytes_of(matrix.type));
}

}  // namespace

int32_t check_gemm(const Gemm& g) {
  const int64_t a_rows = g.transpose_a ? g.k : g.m, b_rows = g.transpose_b ? g.n : g.k;
  if (g.m < 0 || g.n < 0 || g.k < 0 || g.batch < 0) return kInvalidValue;
  if (g.a.ld < std::max<int64_t>(1, a_rows) || g.b.ld < std::max<int64_t>(1, b_rows)) return kInvalidValue;
  if (g.c.ld < std::max<int64_t>(1, g.m) || g.d.ld < std::max<int64_t>(1, g.m)) return kInvalidValue;
  const bool fp8 = g.a.type == kR8FE4M3;
  if ((!fp8 && !is_float_type(g.a.type)) || g.a.type != g.b.type) return kNotSupported;
  if (!is_float_type(g.d.type) || g.c.type != g.d.type) return kNotSupported;
  if (!fp8 && g.d.type != kR32F && g.d.type != g.a.type) return kNotSupported;
  const bool known = in_device_memory(g.a, a_rows, g.transpose_a ? g.m : g.k, g.batch) &&
                     in_device_memory(g.b, b_rows, g.transpose_b ? g.k : g.n, g.batch) &&
                     in_device_memory(g.c, g.m, g.n, g.batch) && in_device_memory(g.d, g.m, g.n, g.batch) &&
                     (!g.bias || in_device_memory(g.bias, g.m * bytes_of(g.d.type)));
  return known ? kSuccess : kInvalidValue;
}

void multiply(const Gemm& g) {
  const int64_t length = padded(g.k);
  for (int64_t batch = 0; batch < g.batch; batch++) {
    const std::vector<float> a = along_k(g.a, batch, g.m, g.k, g.transpose_a);
    const std::vector<float> b = along_k(g.b, batch, g.n, g.k, !g.transpose_b);
    for (int64_t column = 0; column < g.n; column++) {
      for (int64_t row = 0; row < g.m; row++) {
        float value = g.alpha * dot(a.data() + row * length, b.data() + column * length, length);
        // With beta 0 what C held is not read.
        if (g.beta != 0) {
          value += g.beta * read_element(g.c.data + batch * g.c.stride * bytes_of(g.c.type), g.c.type, row + column * g.c.ld);
        }
        if (g.bias) value += read_element(g.bias, g.d.type, row);
        store(g.d, batch * g.d.stride + row + column * g.d.ld, value);
      }
    }
  }
}

}  // namespace bao::emulation
