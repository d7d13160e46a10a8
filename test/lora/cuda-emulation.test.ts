import { afterAll, expect, test } from 'bun:test';
import { createDevice } from '../../src/device/create-device.ts';
import { build, difference, largest, merged, PROMPT, setBatch, withAdapters } from './adapted-models.ts';

const device = await createDevice('cuda-emulation', { activationDtype: 'float32' });
afterAll(() => device.close());

test('on the CUDA emulation too an adapter gives what merged weights give, and the base beside it what it gives alone', () =>
  withAdapters(device, 'llama', null, async ({ source, runner, base, layers, tensors, slots }) => {
    const parts = [null, slots[0]!];
    setBatch(
      device,
      layers,
      parts.map((lora) => ({ lora, numTokens: PROMPT.length })),
    );
    const rows = runner.step(parts.map(() => ({ sequence: runner.addSequence(PROMPT.length), ids: PROMPT })));
    const [plain, adapted] = [rows.slice(0, PROMPT.length), rows.slice(PROMPT.length)];
    expect(plain).toEqual(base.step([{ sequence: base.addSequence(PROMPT.length), ids: PROMPT }]));
    const reference = await build(device, 'llama', merged(source, tensors[0]!), null);
    const expected = reference.step([{ sequence: reference.addSequence(PROMPT.length), ids: PROMPT }]);
    expect(difference(adapted, expected) / largest(expected)).toBeLessThan(2e-4);
  }));
