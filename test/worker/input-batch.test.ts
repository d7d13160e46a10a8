import { expect, test } from 'bun:test';
import type { LoRAManager } from '../../src/lora/lora-manager.ts';
import type { LoRARequest } from '../../src/lora/lora-request.ts';
import type { Model } from '../../src/models/model.ts';
import { logitsProcessors } from '../../src/sampling/logits-processor.ts';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';
import type { NewRequestData } from '../../src/scheduler/scheduler-output.ts';
import { InputBatch } from '../../src/worker/input-batch.ts';

const NAME = 'input-batch.test';

function newRequest(key: number, lora: LoRARequest | null): NewRequestData {
  return {
    key,
    requestId: `r${key}`,
    tokenIds: Int32Array.of(1, 2, 3),
    numPromptTokens: 3,
    samplingParams: { ...DEFAULT_SAMPLING_PARAMS, logitsProcessors: [NAME] },
    poolingParams: null,
    eosTokenIds: [],
    seed: 0n,
    lora,
    blockIds: [],
    numComputedTokens: 0,
    numScheduledTokens: 3,
  };
}

test('a batch that is given up lets go of what its requests held, once', () => {
  const removed: string[] = [];
  logitsProcessors.register(NAME, {
    addRequest: ({ requestId }) => ({ apply() {}, remove: () => removed.push(requestId) }),
  });
  const released: number[] = [];
  const loras: Pick<LoRAManager, 'acquire' | 'release'> = {
    acquire: () => ({ slot: 0, rank: 8 }),
    release: (id) => released.push(id),
  };
  const batch = new InputBatch(2, 0, {} as Model, 16, loras);
  batch.add(newRequest(1, { id: 5, name: 'a', path: '/a' }));
  batch.add(newRequest(2, null));
  batch.releaseAll();
  batch.release(1);
  expect([removed, released]).toEqual([['r1', 'r2'], [5]]);
  expect(() => batch.get(1)).toThrow('does not hold');
  // Both places are free again.
  for (const key of [3, 4]) batch.add(newRequest(key, null));
});
