import type { Device } from '../device/device.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import type { LoRALayers } from '../lora/lora-layers.ts';
import type { LoadedModel } from './loaded-model.ts';

export interface LargestStep {
  numTokens: number;
  numSeqs: number;
  /** Tokens of a sequence. */
  seqLen: number;
  /** Rows of logits, or of pooled hidden states. */
  numRows: number;
  /** null: there are no adapters. */
  loras: { layers: Pick<LoRALayers, 'setBatch'>; maxRank: number } | null;
}

/** Takes what ops need beside their arguments in the largest step that can come, so that no step has to take memory for them. */
export function rehearseStep(device: Device, loaded: LoadedModel, step: LargestStep): void {
  const { numTokens, numSeqs, seqLen, numRows, loras } = step;
  const nothing = { slotMapping: 0, blockTables: 0, ldBlockTable: 0 };
  const context: ForwardContext = {
    ...{ numTokens, numSeqs, positions: 0, seqLens: 0, queryStartLoc: 0, maxSeqLen: seqLen, tokenTypeIds: 0 },
    attention: () => nothing,
  };
  loras?.layers.setBatch({
    ...{ rows: 0, groupOffsets: 0, groupSlots: 0 },
    ...{ numRows: numTokens, numGroups: 1, maxRank: loras.maxRank },
  });
  device.rehearse(() => {
    const hidden = loaded.model.forward(0, context);
    if (loaded.kind === 'pooling') {
      loaded.model.head?.forward(hidden, [{ slot: null, numRows }]);
      return;
    }
    const { vocabSize } = loaded.model;
    const logits = loaded.model.computeLogits(hidden, numRows);
    device.ops.sample(logits, numRows, vocabSize, 0, 0, 0, 0, 0, 0, 0);
    device.ops.logprobs(logits, numRows, vocabSize, 0, 0, 0, 0, 0, 0, 0);
  });
  loras?.layers.setBatch(null);
}
