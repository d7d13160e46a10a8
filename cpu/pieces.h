// How a product is shared out among the chunks of its task.
#pragma once

#include "abi.h"
#include "chunk.h"

namespace bao {

// Shares out pieces of a task among its chunks, which are no more than the pieces. `run(piece, claim_next)` calls claim_next once, when it nears its end: the piece after it, or -1.
template <class Run>
__attribute__((always_inline)) inline void for_each_piece(const ChunkContext& c, int64_t pieces, Run run) {
  for (int64_t piece = c.chunk; piece >= 0;) {
    int64_t next = -1;
    run(piece, [&] {
      const int64_t claimed = c.next_item();
      return next = claimed < pieces ? claimed : -1;
    });
    piece = next;
  }
}

// How panels are shared out as pieces (see for_each_piece): as many large ones as there are chunks, so that each thread's first is known and can
// be read ahead, then small ones, so that threads end together.
struct PanelPieces {
  int32_t num_large, large, small;

  int64_t first_panel(int64_t piece) const {
    return piece <= num_large ? piece * large : num_large * int64_t{large} + (piece - num_large) * small;
  }
  int64_t count(int64_t panels) const {
    const int64_t rest = panels - num_large * int64_t{large};
    return rest > 0 ? num_large + ceil_div(rest, small) : ceil_div(panels, large);
  }
};

}  // namespace bao
