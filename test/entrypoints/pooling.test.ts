import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LLM, LoRARequest, ValidationError } from '../../src/index.ts';

const GOLDENS = join(import.meta.dir, '../goldens');
const golden = (name: string) => JSON.parse(readFileSync(join(GOLDENS, name, 'golden.json'), 'utf8'));
const create = (model: string, options = {}) =>
  LLM.create({ model: join(GOLDENS, model), logLevel: 'error', cpuThreads: 1, dtype: 'float32', ...options });

const near = (actual: readonly number[], expected: readonly number[]) => {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-3);
  });
};

describe('an embedding model', () => {
  const { texts } = golden('sentence_bert') as { texts: { text: string; ids: number[]; embedding: number[] }[] };
  let llm: LLM;
  beforeAll(async () => {
    llm = await create('sentence_bert', { hfOverrides: { is_matryoshka: true } });
  });
  afterAll(() => llm.close());

  test('embed gives the embeddings of texts and ids, in their order', async () => {
    const prompts = texts.map(({ text, ids }, i) => (i === 0 ? ids : text));
    const outputs = await llm.embed(prompts, { truncatePromptTokens: -1 });
    outputs.forEach(({ outputs: { embedding }, prompt, promptTokenIds }, i) => {
      near(embedding, texts[i]!.embedding);
      expect(promptTokenIds).toEqual(texts[i]!.ids);
      expect(prompt).toBe(i === 0 ? null : texts[i]!.text);
    });
    expect(await llm.embed([])).toEqual([]);
  });

  test('dimensions cut, and useActivation decides on the length', async () => {
    const [cut] = await llm.embed('an owl', { dimensions: 5 });
    expect(cut!.outputs.embedding).toHaveLength(5);
    expect(Math.hypot(...cut!.outputs.embedding)).toBeCloseTo(1, 5);
    const [raw] = await llm.embed('an owl', { useActivation: false });
    expect(Math.hypot(...raw!.outputs.embedding)).toBeGreaterThan(1.1);
  });

  test('score compares embeddings', async () => {
    const scores = await llm.score('an owl', ['an owl', 'Zürich']);
    expect(scores[0]!.outputs.score).toBeCloseTo(1, 5);
    expect(scores[1]!.outputs.score).toBeLessThan(0.99);
  });

  test('what it can not do is refused', async () => {
    for (const call of [
      llm.classify('an owl'),
      llm.generate('an owl'),
      llm.embed(texts.at(-1)!.text),
      llm.embed('an owl', { dimensions: 1000 }),
      llm.embed('an owl', { truncatePromptTokens: -5 }),
      llm.score(['a', 'b'], ['a']),
    ]) {
      expect(await call.catch((error: unknown) => error)).toBeInstanceOf(ValidationError);
    }
  });
});

test('classify gives the probability of each class of a decoder with a head', async () => {
  await using llm = await create('llama_classifier', { skipTokenizerInit: true });
  const { prompts } = golden('llama_classifier') as { prompts: { ids: number[]; logits: number[] }[] };
  const outputs = await llm.classify(prompts.map(({ ids }) => ids));
  outputs.forEach(({ outputs: { probs, label } }, i) => {
    const exps = prompts[i]!.logits.map(Math.exp);
    const total = exps.reduce((sum, value) => sum + value, 0);
    near(
      probs,
      exps.map((value) => value / total),
    );
    expect(label).toBe(`LABEL_${probs.indexOf(Math.max(...probs))}`);
  });
});

test.each(['sentence_bert', 'demo'])('%s sleeps and wakes; what is kept is pooled then', async (name) => {
  const options = { logLevel: 'error', cpuThreads: 1, runner: 'pooling', enableSleepMode: true } as const;
  await using llm = await LLM.create({ model: name === 'demo' ? name : join(GOLDENS, name), ...options });
  const vectorOf = async () => (await llm.embed('an owl'))[0]!.outputs.embedding;
  const before = await vectorOf();
  const running = vectorOf();
  await llm.sleep(1, 'keep');
  const waiting = vectorOf();
  await llm.wakeUp();
  expect([await running, await waiting]).toEqual([before, before]);
  await llm.sleep(0);
  const ended = vectorOf().catch((error: unknown) => error);
  // The answer comes after the request has reached the engine.
  expect(await llm.isSleeping()).toBe(true);
  await llm.sleep(1, 'abort');
  expect(String(await ended)).toContain('has ended without an output (abort)');
});

test('an adapter changes what a text is embedded as, the base model beside it stays', async () => {
  const options = { logLevel: 'error', cpuThreads: 1, runner: 'pooling' } as const;
  await using llm = await LLM.create({
    model: 'demo',
    ...options,
    enableLora: true,
    loraModules: ['pirate=demo-pirate'],
  });
  const pirate = new LoRARequest({ loraName: 'pirate' });
  const prompts = ['an owl', 'an owl', 'an owl'];
  const [adapted, base, again] = await llm.embed(prompts, { loraRequest: [pirate, null, pirate] });
  expect(again!.outputs).toEqual(adapted!.outputs);
  expect(base!.outputs).not.toEqual(adapted!.outputs);
  expect((await llm.embed('an owl'))[0]!.outputs).toEqual(base!.outputs);
  const [same] = await llm.score('an owl', 'an owl', { loraRequest: pirate });
  expect(same!.outputs.score).toBeCloseTo(1, 5);
});

test('a model that generates is not pooled', async () => {
  await using llm = await LLM.create({ model: 'demo', logLevel: 'error', cpuThreads: 1, maxModelLen: 64 });
  expect(await llm.embed('an owl').catch((error: unknown) => error)).toBeInstanceOf(ValidationError);
});
