import { afterAll, describe, expect, test } from 'bun:test';
import type { LoRASlot } from '../../src/lora/lora-batch.ts';
import { openDevice } from '../device/harness.ts';
import { build, difference, largest, merged, PROMPT, setBatch, withAdapters } from './adapted-models.ts';

const device = openDevice(2);
afterAll(() => device.close());

/** Separate and stacked projections, several norms, biases, experts beside, latent attention. */
describe.each(['llama', 'phi3', 'qwen2', 'gemma3_text', 'qwen3_moe', 'deepseek_v3'])('%s', (golden) => {
  test('an adapter gives what merged weights give', () =>
    withAdapters(device, golden, null, async ({ source, runner, layers, tensors, slots }) => {
      setBatch(device, layers, [{ lora: slots[0]!, numTokens: PROMPT.length }]);
      const adapted = runner.step([{ sequence: runner.addSequence(PROMPT.length), ids: PROMPT }]);
      const reference = await build(device, golden, merged(source, tensors[0]!), null);
      const expected = reference.step([{ sequence: reference.addSequence(PROMPT.length), ids: PROMPT }]);
      expect(difference(adapted, expected) / largest(expected)).toBeLessThan(2e-4);
      setBatch(device, layers, [{ lora: null, numTokens: PROMPT.length }]);
      const plain = runner.step([{ sequence: runner.addSequence(PROMPT.length), ids: PROMPT }]);
      expect(difference(plain, expected) / largest(expected)).toBeGreaterThan(1e-2);
    }));

  test('base and adapters in one batch: each has the bits that it has alone', () =>
    withAdapters(device, golden, null, async ({ runner, base, layers, slots }) => {
      const order = [slots[1]!, null, slots[0]!, slots[1]!];
      const prompts = order.map((_, i) => PROMPT.slice(i));
      const alone = prompts.map((ids, i) => {
        setBatch(device, layers, [{ lora: order[i]!, numTokens: ids.length }]);
        return runner.step([{ sequence: runner.addSequence(ids.length), ids }]);
      });
      runner.reset();
      setBatch(
        device,
        layers,
        prompts.map((ids, i) => ({ lora: order[i]!, numTokens: ids.length })),
      );
      const together = runner.step(prompts.map((ids) => ({ sequence: runner.addSequence(ids.length), ids })));
      expect(together).toEqual(alone.flat());
      expect(alone[1]).toEqual(base.step([{ sequence: base.addSequence(39), ids: prompts[1]! }]));
      expect(alone[3]!.at(-1)).not.toEqual(alone[2]!.at(-1));
    }));
});

test('quantized weights: what the base gives plus the adapter, the base alone unchanged', () =>
  withAdapters(device, 'llama', 'int8', async ({ runner, base, layers, slots, source, tensors }) => {
    const step = (lora: LoRASlot | null) => {
      setBatch(device, layers, [{ lora, numTokens: PROMPT.length }]);
      return runner.step([{ sequence: runner.addSequence(PROMPT.length), ids: PROMPT }]);
    };
    const plain = step(null);
    expect(plain).toEqual(base.step([{ sequence: base.addSequence(PROMPT.length), ids: PROMPT }]));
    const reference = await build(device, 'llama', merged(source, tensors[0]!), null);
    const expected = reference.step([{ sequence: reference.addSequence(PROMPT.length), ids: PROMPT }]);
    const error = difference(step(slots[0]!), expected);
    // int8 is coarse, but far nearer to the merged weights than the base is.
    expect(error).toBeLessThan(difference(plain, expected) / 4);
  }));
