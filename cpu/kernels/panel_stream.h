// How packed weights come through a register tile: some panels side by side, and what is asked for ahead of its use.
//
// Panels lie one after another, each over all of k. A tile that takes several at once reads as many streams: the processor's own
// prefetcher follows each of them, some lines ahead and never beyond a page, so that more requests are under way than in one stream.
#pragma once

#include "prefetch.h"

namespace bao::BAO_ISA {
namespace {

// Panels that a tile takes at once where it has so many accumulators and a panel takes `each`.
static constexpr int64_t panels_at_once(int64_t accumulators, int64_t each) {
  const int64_t panels = accumulators / each;
  return panels < 1 ? 1 : panels > kMaxTilePanels ? kMaxTilePanels : panels;
}

// N places at equal distances. Three share a register: an address may add a stride, or twice that.
template <class T, int N>
struct Places {
  static constexpr int kBases = (N + 2) / 3;
  const T* base[kBases];
  int64_t stride;

  BAO_INLINE_MEMBER Places(const T* first, int64_t distance) : stride(distance) { move(first); }
  BAO_INLINE_MEMBER const T* operator[](int i) const { return base[i / 3] + i % 3 * stride; }
  BAO_INLINE_MEMBER void move(const T* first) {
    BAO_UNROLL
    for (int i = 0; i < kBases; i++) base[i] = first + i * 3 * stride;
  }
  BAO_INLINE_MEMBER void advance(int64_t by) {
    BAO_UNROLL
    for (int i = 0; i < kBases; i++) base[i] += by;
  }
};

// Some neighbouring panels of a weight, each from the same k on; `stride` bytes apart.
struct Panels {
  const char* data;
  int64_t stride;
  int64_t count;

  const char* operator[](int64_t panel) const { return data + panel * stride; }
  Panels from(int64_t panel) const { return {data + panel * stride, stride, count - panel}; }
};

// Who knows where the weights begin that a thread takes next, asked once: nullptr where there are none.
struct NextWeights {
  const char* (*claim)(void* self);
  void* self;
};
// `claim` must live as long as what it gives.
template <class Claim>
BAO_INLINE NextWeights next_weights(Claim& claim) {
  return {[](void* self) -> const char* { return (*static_cast<Claim*>(self))(); }, &claim};
}

// Weights that are used once. They are asked for ahead of their use; near the end of some panels those that follow are.
struct PanelStream {
  NextWeights last;
  // nullptr: `last` knows.
  const char* following = nullptr;

  // For `count` of w's panels, from `panel` on.
  PanelStream of(const Panels& w, int64_t panel, int64_t count) const {
    return {last, panel + count < w.count ? w[panel + count] : nullptr};
  }
  PanelStream alone(const Panels& w, int64_t panel) const { return of(w, panel, 1); }
};

// So many steps of any kind of weights are whole rounds of a tile's loop.
constexpr int64_t kAllRounds = 4;

// What to ask for while a tile passes over NP panels, `Bytes` bytes a step. Where reading takes the time, lines are asked for twice: into
// the second-level cache, where more requests can wait than in the first, and from there into the first.
template <int NP, int64_t Bytes, bool Twice, int64_t NearBytes = Twice ? 1024 : 2048>
class Ahead {
  static constexpr int64_t kFarSteps = (Twice ? 4096 : NearBytes) / Bytes, kNearSteps = NearBytes / Bytes;

 public:
  BAO_INLINE_MEMBER Ahead(const PanelStream& source, const Panels& w, int64_t steps)
      : source_(source),
        near_(w.data + kNearSteps * Bytes, w.stride),
        far_(w.data + kFarSteps * Bytes, w.stride),
        steps_(steps) {}

  // `done` steps are done: up to which one to go until this is called again.
  BAO_INLINE_MEMBER int64_t until(int64_t done) {
    const int64_t far_end = before_end(kFarSteps), near_end = before_end(kNearSteps);
    if (done < far_end) return far_end;
    if (done == far_end) {
      if (!source_.following) source_.following = source_.last.claim(source_.last.self);
      turn(far_, kFarSteps);
    }
    if (done < near_end) return near_end;
    if (done == near_end) turn(near_, kNearSteps);
    return steps_;
  }

  // Asks for what the next steps of later ones need.
  template <int Steps>
  BAO_INLINE_MEMBER void step() {
    BAO_UNROLL
    for (int p = 0; p < NP; p++) {
      BAO_UNROLL
      for (int64_t line = 0; line < Steps * Bytes; line += 64) {
        if (Twice) prefetch_far(far_[p] + line);
        prefetch_near(near_[p] + line);
      }
    }
    advance<Steps>();
  }
  // The same in parts: a panel's lines for the first-level cache, then on to the next steps.
  BAO_INLINE_MEMBER void ask_near(int panel) const {
    BAO_UNROLL
    for (int64_t line = 0; line < Bytes; line += 64) prefetch_near(near_[panel] + line);
  }
  template <int Steps>
  BAO_INLINE_MEMBER void advance() {
    near_.advance(Steps * Bytes);
    if (Twice) far_.advance(Steps * Bytes);
  }

 private:
  int64_t before_end(int64_t distance) const { return max(steps_ - distance, int64_t{0}) / kAllRounds * kAllRounds; }
  // Nothing follows: what is asked for is there already.
  BAO_INLINE_MEMBER void turn(Places<char, NP>& places, int64_t distance) const {
    places.move(source_.following ? source_.following : places[0] - distance * Bytes);
  }

  PanelStream source_;
  Places<char, NP> near_, far_;
  int64_t steps_;
};

// Several tiles share the weights, which are in the first-level cache. Meanwhile each asks for its part of the next block: for each panel
// of the tile a line every `period` rounds, from `next` on, `stride` bytes apart. (Where a round takes long, `lines` of them every time.)
struct Shared {
  const char* next;
  int64_t stride;
  int64_t period;
  int64_t lines = 1;

  Shared of(const Panels&, int64_t panel, int64_t) const { return {next + panel * stride, stride, period, lines}; }
  // A single panel asks for little more than what it reads.
  PanelStream alone(const Panels&, int64_t panel) const { return {{}, next + panel * stride}; }
};
template <int NP>
class NextBlock {
 public:
  BAO_INLINE_MEMBER NextBlock(const Shared& source, int64_t steps)
      : lines_(source.next, source.stride), period_(source.period), steps_(steps) {}
  BAO_INLINE_MEMBER int64_t until(int64_t) const { return steps_; }
  template <int Steps>
  BAO_INLINE_MEMBER void step() {
    if (--rounds_left_ > 0) return;
    BAO_UNROLL
    for (int p = 0; p < NP; p++) prefetch_far(lines_[p]);
    lines_.advance(64);
    rounds_left_ = period_;
  }

 private:
  Places<char, NP> lines_;
  int64_t period_;
  int64_t steps_;
  int64_t rounds_left_ = 1;
};

template <int NP, int64_t Bytes, bool Twice>
BAO_INLINE Ahead<NP, Bytes, Twice> ahead_of(const PanelStream& source, const Panels& w, int64_t steps) {
  return {source, w, steps};
}
template <int NP, int64_t Bytes, bool Twice>
BAO_INLINE NextBlock<NP> ahead_of(const Shared& source, const Panels&, int64_t steps) {
  return {source, steps};
}

// All panels by tiles of R rows, which take Max at once, or one: `tile(number of panels, first panel, source)`. Each size is a function to
// compile, so there are few. A block that tiles share has as many panels as its highest tile takes, three or four; low tiles, which are
// rare there, take one.
template <int R, int Max, class Source, class Tile>
BAO_INLINE void for_each_tile(const Panels& w, const Source& source, Tile tile) {
  constexpr bool kShared = std::is_same_v<Source, Shared>, kLow = R < 4;
  for (int64_t p = 0; p < w.count;) {
    if constexpr (!kShared || !kLow) {
      if (w.count - p >= Max) {
        tile(std::integral_constant<int, Max>{}, p, source.of(w, p, Max));
        p += Max;
        continue;
      }
    }
    if constexpr (kShared && !kLow && Max > 3) {
      if (w.count - p == 3) return tile(std::integral_constant<int, 3>{}, p, source.of(w, p, 3));
    }
    tile(std::integral_constant<int, 1>{}, p, source.alone(w, p));
    p++;
  }
}

}  // namespace
}  // namespace bao::BAO_ISA
