// Bidirectional attention with online softmax. A work item is one head and up to kEncoderQueries queries of one sequence; keys
// are taken in tiles of kKeyTile from the sequence's start. A row's arithmetic is a function of its own sequence only.
#include "../simd.h"

namespace bao::BAO_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 12;
#elif defined(__AVX2__) || defined(__ARM_NEON)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 3;
#endif
constexpr int64_t kTileColumns = 2 * kLanes;
// Stands for the logarithm of nothing; finite, so that differences of it are numbers.
constexpr float kNothing = -1e30f;

struct Item {
  // Rows of the sequence, and the queries' among them.
  int64_t first_row, length, query, num_queries;
  int64_t head;
};

// Walks the batch's items in their fixed order; asked for ascending numbers only.
class Items {
 public:
  explicit Items(const EncoderAttentionArgs& a) : a_(a) {}

  bool find(int64_t number, Item& item) {
    for (; sequence_ < a_.num_seqs; sequence_++) {
      const int64_t first = a_.query_start_loc[sequence_];
      const int64_t length = max(0, a_.query_start_loc[sequence_ + 1] - first);
      const int64_t count = ceil_div(length, kEncoderQueries) * a_.num_heads;
      if (number < base_ + count) {
        const int64_t query = (number - base_) / a_.num_heads * kEncoderQueries;
        item = {first, length, query, min(kEncoderQueries, length - query), (number - base_) % a_.num_heads};
        return true;
      }
      base_ += count;
    }
    return false;
  }

 private:
  const EncoderAttentionArgs& a_;
  int64_t sequence_ = 0, base_ = 0;
};

struct Scratch {
  Scratch(int64_t head_dim, void* memory) : dim(encoder_dim(head_dim)) {
    float* p = static_cast<float*>(memory);
    const auto take = [&p](int64_t floats) {
      float* begin = p;
      p += floats;
      return begin;
    };
    keys = take(dim * kKeyTile);
    values = take(kKeyTile * dim);
    queries = take(kEncoderQueries * dim);
    totals = take(kEncoderQueries * dim);
    scores = take(kEncoderQueries * kKeyTile);
    maximum = take(kEncoderQueries);
    sum = take(kEncoderQueries);
  }

  int64_t dim;
  // [dim][kKeyTile], [kKeyTile][dim]
  float* keys;
  float* values;
  // [kEncoderQueries][dim]: scaled queries, weighted sums of values
  float* queries;
  float* totals;
  // [kEncoderQueries][kKeyTile], scores and then probabilities
  float* scores;
  float* maximum;
  float* sum;
};

// c[Rows][kTileColumns] = a[Rows][depth] · b[depth][kTileColumns], added to what c holds with `add`.
template <int Rows>
BAO_INLINE void product_tile(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t depth,
                             bool add) {
  F acc[Rows][2];
  BAO_UNROLL
  for (int r = 0; r < Rows; r++) {
    acc[r][0] = add ? load(c + r * ldc) : F{};
    acc[r][1] = add ? load(c + r * ldc + kLanes) : F{};
  }
  for (int64_t i = 0; i < depth; i++) {
    const F b0 = load(b + i * ldb), b1 = load(b + i * ldb + kLanes);
    BAO_UNROLL
    for (int r = 0; r < Rows; r++) {
      const F x = set1(a[r * lda + i]);
      accumulate(acc[r][0], x, b0);
      accumulate(acc[r][1], x, b1);
    }
  }
  BAO_UNROLL
  for (int r = 0; r < Rows; r++) {
    store(c + r * ldc, acc[r][0]);
    store(c + r * ldc + kLanes, acc[r][1]);
  }
}

// The same for any number of rows and whole tiles of columns.
BAO_INLINE void product(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t rows,
                        int64_t depth, int64_t columns, bool add) {
  for (int64_t j = 0; j < columns; j += kTileColumns) {
    int64_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows) {
      product_tile<kTileRows>(a + r * lda, lda, b + j, ldb, c + r * ldc + j, ldc, depth, add);
    }
    for (; r < rows; r++) product_tile<1>(a + r * lda, lda, b + j, ldb, c + r * ldc + j, ldc, depth, add);
  }
}

void load_queries(const EncoderAttentionArgs& a, const Item& item, const Scratch& s) {
  for (int64_t r = 0; r < item.num_queries; r++) {
    const float* q = a.q + (item.first_row + item.query + r) * a.ld_qkv + item.head * a.head_dim;
    for (int64_t i = 0; i < a.head_dim; i++) s.queries[r * s.dim + i] = q[i] * a.scale;
    std::memset(s.totals + r * s.dim, 0, static_cast<size_t>(s.dim) * sizeof(float));
    s.maximum[r] = kNothing;
    s.sum[r] = 0;
  }
}

// Keys transposed, so that they are lanes; what is beyond the sequence or the head is 0.
void load_keys(const EncoderAttentionArgs& a, const Item& item, int64_t tile, int64_t count, const Scratch& s) {
  const int64_t kv_head = item.head / (a.num_heads / a.num_kv_heads);
  const int64_t at = (item.first_row + tile) * a.ld_qkv + kv_head * a.head_dim;
  for (int64_t j = 0; j < kKeyTile; j++) {
    if (j >= count) {
      for (int64_t i = 0; i < a.head_dim; i++) s.keys[i * kKeyTile + j] = 0;
      std::memset(s.values + j * s.dim, 0, static_cast<size_t>(s.dim) * sizeof(float));
      continue;
    }
    const float* key = a.k + at + j * a.ld_qkv;
    for (int64_t i = 0; i < a.head_dim; i++) s.keys[i * kKeyTile + j] = key[i];
    std::memcpy(s.values + j * s.dim, a.v + at + j * a.ld_qkv, static_cast<size_t>(a.head_dim) * sizeof(float));
    std::memset(s.values + j * s.dim + a.head_dim, 0, static_cast<size_t>(s.dim - a.head_dim) * sizeof(float));
  }
}

// Scores of keys [begin, end) of the tile to probabilities by the row's maximum so far, 0 for the others; what the row has
// summed is brought to the same maximum.
void soften(float* scores, int64_t begin, int64_t end, float& maximum, float& sum, float* totals, int64_t dim) {
  F best = set1(kNothing);
  for (int64_t j = 0; j < begin; j++) scores[j] = kNothing;
  for (int64_t j = end; j < kKeyTile; j++) scores[j] = kNothing;
  for (int64_t j = 0; j < kKeyTile; j += kLanes) best = max(load(scores + j), best);
  const float next = max(maximum, reduce_max(best));
  const float shrink = exp(maximum - next);
  F total{};
  for (int64_t j = 0; j < kKeyTile; j += kLanes) {
    const F p = exp(load(scores + j) - next);
    store(scores + j, p);
    total += p;
  }
  sum = sum * shrink + reduce_add(total);
  if (maximum != next) {
    for (int64_t i = 0; i < dim; i += kLanes) store(totals + i, load(totals + i) * shrink);
  }
  maximum = next;
}

void attend(const EncoderAttentionArgs& a, const Item& item, const Scratch& s) {
  const int64_t last = item.query + item.num_queries - 1;
  const int64_t keys_begin = a.reach > 0 ? max(0, item.query - a.reach) : 0;
  const int64_t keys_end = a.reach > 0 ? min(item.length, last + a.reach + 1) : item.length;
  load_queries(a, item, s);
  for (int64_t tile = keys_begin / kKeyTile * kKeyTile; tile < keys_end; tile += kKeyTile) {
    const int64_t count = min(kKeyTile, item.length - tile);
    load_keys(a, item, tile, count, s);
    product(s.queries, s.dim, s.keys, kKeyTile, s.scores, kKeyTile, item.num_queries, a.head_dim, kKeyTile, false);
    for (int64_t r = 0; r < item.num_queries; r++) {
      const int64_t position = item.query + r;
      const int64_t begin = a.reach > 0 ? max(0, position - a.reach - tile) : 0;
      const int64_t end = a.reach > 0 ? min(count, position + a.reach + 1 - tile) : count;
      float* scores = s.scores + r * kKeyTile;
      if (begin < end) {
        soften(scores, begin, end, s.maximum[r], s.sum[r], s.totals + r * s.dim, s.dim);
      } else {
        std::memset(scores, 0, static_cast<size_t>(kKeyTile) * sizeof(float));
      }
    }
    product(s.scores, kKeyTile, s.values, s.dim, s.totals, s.dim, item.num_queries, kKeyTile, s.dim, true);
  }
  for (int64_t r = 0; r < item.num_queries; r++) {
    float* out = a.out + (item.first_row + item.query + r) * a.ld_out + item.head * a.head_dim;
    const float inverse = 1.0f / s.sum[r];
    for (int64_t i = 0; i < a.head_dim; i++) out[i] = s.totals[r * s.dim + i] * inverse;
  }
}

}  // namespace

static void encoder_attention(const EncoderAttentionArgs& a, const ChunkContext& c) {
  const Scratch scratch(a.head_dim, c.scratch);
  Items items(a);
  Item item;
  for (int64_t number = c.chunk; items.find(number, item); number = c.next_item()) attend(a, item, scratch);
}

void use_encoder_attention(KernelTable& table) {
  table.encoder_attention = encoder_attention;
}

}  // namespace bao::BAO_ISA
