import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { AsyncLLM, LLM, LoRARequest, type RequestOutput, SamplingParams, ValidationError } from '../../src/index.ts';

const GREEDY = { temperature: 0, maxTokens: 8 };
const QUESTION = [{ role: 'user', content: 'What is the capital of France?' }];

describe('LLM', () => {
  let llm: LLM;
  beforeAll(async () => {
    llm = await LLM.create({ model: 'demo', logLevel: 'error', maxModelLen: 512, cpuThreads: 1 });
  });
  afterAll(() => llm.close());

  test('outputs come in the order of the prompts, whatever their length', async () => {
    const prompts = ['one', 'The opposite of hot is', [300, 301, 302]];
    const params = [5, 3, 1].map((maxTokens) => new SamplingParams({ temperature: 0, maxTokens, ignoreEos: true }));
    const outputs = await llm.generate(prompts, params);
    expect(outputs.map(({ prompt }) => prompt)).toEqual(['one', 'The opposite of hot is', null]);
    expect(outputs.map(({ outputs: [first] }) => first!.tokenIds.length)).toEqual([5, 3, 1]);
    expect(outputs.every(({ finished }) => finished)).toBe(true);
    expect(outputs[2]!.promptTokenIds).toEqual([300, 301, 302]);
  });

  test('one prompt may be a text or a list of ids; none give no outputs', async () => {
    const [ofText] = await llm.generate('hello', GREEDY);
    const [ofIds] = await llm.generate([...(await llm.encode('hello'))], GREEDY);
    expect(ofIds!.outputs[0]!.tokenIds).toEqual(ofText!.outputs[0]!.tokenIds);
    expect(await llm.generate([])).toEqual([]);
  });

  test('a text of any length that could fit is encoded, none without end', async () => {
    expect(await llm.encode('a'.repeat(100_000))).toHaveLength(100_000);
    const refused = llm.encode('a'.repeat(5_000_000)).catch((error: unknown) => error);
    expect(await refused).toBeInstanceOf(ValidationError);
    expect(String(await refused)).toContain('5000000 characters; at most 4194304 are tokenized');
  });

  test('chat answers one conversation or several', async () => {
    const [alone] = await llm.chat(QUESTION, { temperature: 0, maxTokens: 16 });
    expect(alone!.outputs[0]!.text).toContain('Paris');
    expect(alone!.prompt).toContain('What is the capital of France?');
    const both = await llm.chat([QUESTION, [{ role: 'user', content: 'hi' }]], { temperature: 0, maxTokens: 16 });
    expect(both).toHaveLength(2);
    expect(both[0]!.outputs[0]!.text).toBe(alone!.outputs[0]!.text);
  });

  test('an answer that repeats itself is ended; what no plugin reads is refused', async () => {
    const params = { temperature: 0, maxTokens: 100, ignoreEos: true };
    const repetitionDetection = { maxPatternSize: 8, minCount: 3 };
    const [output] = await llm.generate('One, two, one, two, one, two,', { ...params, repetitionDetection });
    expect(output!.outputs[0]).toMatchObject({ finishReason: 'repetition', stopReason: 'repetition_detected' });
    expect(output!.outputs[0]!.tokenIds.length).toBeLessThan(100);
    expect(llm.generate('One', { extraArgs: { unheard: 1 } })).rejects.toThrow('`vllm_xargs.unheard`');
    expect(llm.generate('One', { thinkingTokenBudget: 4 })).rejects.toThrow('no reasoning parser');
  });

  test('the template sees tools and variables', async () => {
    const tools = [{ type: 'function' as const, function: { name: 'get_weather' } }];
    const [output] = await llm.chat(QUESTION, { ...GREEDY, maxTokens: 1 }, { tools });
    expect(output!.prompt).toContain('get_weather');
    const [custom] = await llm.chat(
      QUESTION,
      { ...GREEDY, maxTokens: 1 },
      { chatTemplate: '{{ mood }}: {{ messages[0].content }}', chatTemplateKwargs: { mood: 'glad' } },
    );
    expect(custom!.prompt).toBe('glad: What is the capital of France?');
  });

  test('log probabilities are maps with the chosen token first, and their sum', async () => {
    const [output] = await llm.generate('The capital of France is', { ...GREEDY, logprobs: 3, promptLogprobs: 1 });
    const [answer] = output!.outputs;
    expect(answer!.logprobs).toHaveLength(answer!.tokenIds.length);
    expect(answer!.logprobs!.map((position) => [...position.keys()][0]!)).toEqual(answer!.tokenIds);
    expect(answer!.logprobs!.every(({ size }) => size === 3)).toBe(true);
    const sum = answer!.logprobs!.reduce((total, position) => total + [...position.values()][0]!.logprob, 0);
    expect(answer!.cumulativeLogprob).toBeCloseTo(sum, 9);
    expect(output!.promptLogprobs).toHaveLength(output!.promptTokenIds.length);
    expect(output!.promptLogprobs![0]).toBeNull();
    const [plain] = await llm.generate('x', GREEDY);
    expect(plain!.outputs[0]).toMatchObject({ logprobs: null, cumulativeLogprob: null });
  });

  test('n answers, seeds, and constraints', async () => {
    const params = { n: 3, temperature: 1, maxTokens: 6, seed: 7 };
    const [first] = await llm.generate('Once', params);
    const [again] = await llm.generate('Once', params);
    expect(first!.outputs.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(again!.outputs).toEqual(first!.outputs);
    const [chosen] = await llm.chat(QUESTION, { maxTokens: 8, structuredOutputs: { choice: ['yes', 'no'] } });
    expect(['yes', 'no']).toContain(chosen!.outputs[0]!.text);
  });

  test('beam search of width 1 is greedy, and a wider one is never less probable', async () => {
    const prompt = 'The opposite of hot is';
    const [greedy] = await llm.generate(prompt, { ...GREEDY, logprobs: 0, ignoreEos: true });
    const [narrow] = await llm.beamSearch(prompt, { beamWidth: 1, maxTokens: 8, ignoreEos: true });
    expect(narrow!.sequences[0]!.tokenIds).toEqual(greedy!.outputs[0]!.tokenIds);
    expect(narrow!.sequences[0]!.text).toBe(greedy!.outputs[0]!.text);
    expect(narrow!.sequences[0]!.cumulativeLogprob).toBeCloseTo(greedy!.outputs[0]!.cumulativeLogprob!, 3);

    const [wide] = await llm.beamSearch([prompt], { beamWidth: 4, maxTokens: 8, ignoreEos: true });
    const scores = wide!.sequences.map(({ cumulativeLogprob }) => cumulativeLogprob!);
    expect(scores).toHaveLength(4);
    expect(scores).toEqual(scores.toSorted((a, b) => b - a));
    expect(scores[0]).toBeGreaterThanOrEqual(narrow!.sequences[0]!.cumulativeLogprob! - 1e-3);
  });

  test.each<[string, () => Promise<unknown>, string]>([
    ['a prompt that is too long', () => llm.generate(Array.from({ length: 600 }, () => 300)), 'maximum context'],
    ['an unknown id', () => llm.generate([[1, 999_999]]), 'out of vocabulary'],
    ['an id that is none', () => llm.generate([[1, 1.5]]), 'not an integer'],
    ['an empty prompt', () => llm.generate(''), 'empty'],
    ['a number of parameters', () => llm.generate(['a', 'b'], [GREEDY]), 'must be the same'],
    ['a bias of an unknown token', () => llm.generate('a', { logitBias: { 999999: 1 } }), 'out-of-vocab'],
    ['an empty stop string', () => llm.generate('a', { stop: '' }), 'empty string'],
    ['a grammar', () => llm.generate('a', { structuredOutputs: { regex: '(' } }), 'Grammar error'],
    ['no conversation', () => llm.chat([]), 'empty conversation'],
    ['a beam width', () => llm.beamSearch('a', { beamWidth: 0, maxTokens: 1 }), 'at least 1'],
    ['beams beyond maxLogprobs', () => llm.beamSearch('a', { beamWidth: 11, maxTokens: 1 }), 'max allowed: 20'],
  ])('%s is a ValidationError, and the engine goes on', async (_, call, text) => {
    const error = await call().then(
      () => null,
      (reason) => reason,
    );
    expect(error).toBeInstanceOf(ValidationError);
    expect(error.message).toContain(text);
  });

  test('the prefix cache can be emptied', async () => {
    const prompt = Array.from({ length: 64 }, (_, i) => 300 + i);
    await llm.generate(prompt, GREEDY);
    expect((await llm.generate(prompt, GREEDY))[0]!.numCachedTokens).toBeGreaterThan(0);
    expect(await llm.resetPrefixCache()).toBe(true);
    expect((await llm.generate(prompt, GREEDY))[0]!.numCachedTokens).toBe(0);
  });
});

test('options that do not exist or do not fit are told before anything is loaded', async () => {
  // @ts-expect-error: the type knows the flags
  expect(LLM.create({ maxModelLn: 5 })).rejects.toThrow('did you mean --max-model-len?');
  expect(LLM.create({ maxNumSeqs: 0 })).rejects.toThrow('maxNumSeqs takes a whole number');
  expect(LLM.create({ model: './no-such-folder' })).rejects.toThrow('does not exist');
});

describe('SamplingParams', () => {
  test.each([
    [{ temperature: -1 }, 'temperature must be non-negative'],
    [{ topP: 0 }, 'top_p must be in (0, 1]'],
    [{ n: 2, temperature: 0 }, 'n must be 1 when using greedy sampling'],
    [{ maxTokens: 0 }, 'max_tokens must be at least 1'],
    [{ minTokens: 5, maxTokens: 4 }, 'min_tokens must be less than or equal to max_tokens=4'],
  ])('%j is refused by the API’s rule', (options, message) => {
    expect(() => new SamplingParams(options)).toThrow(message);
  });

  test('an unknown name is refused, what depends on the model is not looked at', () => {
    // @ts-expect-error: the type knows the names
    expect(() => new SamplingParams({ max_tokens: 5 })).toThrow('Unknown sampling parameter `max_tokens`');
    expect(new SamplingParams({ stop: 'x', badWords: ['y'], maxTokens: null }).options.stop).toBe('x');
  });
});

describe('AsyncLLM', () => {
  let llm: AsyncLLM;
  beforeAll(async () => {
    llm = await AsyncLLM.fromEngineArgs({ model: 'demo', logLevel: 'error', maxModelLen: 512, cpuThreads: 1 });
  });
  afterAll(() => llm.close());

  async function collect(stream: AsyncIterable<RequestOutput>): Promise<RequestOutput[]> {
    const outputs: RequestOutput[] = [];
    for await (const output of stream) outputs.push(output);
    return outputs;
  }

  test('outputs are cumulative, or only what is new', async () => {
    const all = await collect(llm.generate('The capital of France is', { ...GREEDY, logprobs: 0 }));
    const news = await collect(
      llm.generate('The capital of France is', { ...GREEDY, logprobs: 0, outputKind: 'delta' }),
    );
    const last = all.at(-1)!.outputs[0]!;
    expect(all.at(-1)!.finished).toBe(true);
    expect(news.map(({ outputs }) => outputs[0]!.text).join('')).toBe(last.text);
    expect(news.at(-1)!.outputs[0]!.cumulativeLogprob).toBeCloseTo(last.cumulativeLogprob!, 6);
  });

  test('requests that run together do not mix', async () => {
    const ask = (country: string) =>
      collect(llm.chat([{ role: 'user', content: `What is the capital of ${country}?` }], { temperature: 0 }));
    const [france, italy] = await Promise.all([ask('France'), ask('Italy')]);
    expect(france!.at(-1)!.outputs[0]!.text).toContain('Paris');
    expect(italy!.at(-1)!.outputs[0]!.text).toContain('Rome');
  });

  test('abort, a signal and leaving the loop end a request', async () => {
    const endless = { maxTokens: null, ignoreEos: true };
    const aborted: RequestOutput[] = [];
    for await (const output of llm.generate('a', endless, { requestId: 'mine' })) {
      aborted.push(output);
      llm.abort('mine');
    }
    expect(aborted).toHaveLength(1);

    const controller = new AbortController();
    let numOutputs = 0;
    for await (const _ of llm.generate('a', endless, { signal: controller.signal })) {
      if (++numOutputs === 2) controller.abort();
    }
    expect(numOutputs).toBe(2);

    for await (const _ of llm.generate('a', endless, { requestId: 'left' })) break;
    // The id is free again, and nothing runs that would hold the cache.
    const [again] = await collect(llm.generate('a', { maxTokens: 1 }, { requestId: 'left' }));
    expect(again!.requestId).toBe('left');
    expect(llm.health()).toEqual({ healthy: true });
  });

  test('an id in use is refused', async () => {
    const first = llm.generate('a', { maxTokens: null, ignoreEos: true }, { requestId: 'twice' });
    await first.next();
    expect(collect(llm.generate('a', GREEDY, { requestId: 'twice' }))).rejects.toThrow('already running');
    await first.return();
  });
});

describe('adapters', () => {
  const pirate = new LoRARequest({ loraName: 'pirate', loraPath: 'demo-pirate' });
  const answer = { temperature: 0, maxTokens: 24 };
  const isPirate = (output: RequestOutput) => output.outputs[0]!.text.includes('Arrr');

  test('one for all prompts or one for each, the base beside them', async () => {
    await using llm = await LLM.create({ model: 'demo', enableLora: true, logLevel: 'error', cpuThreads: 1 });
    const [all] = await llm.chat(QUESTION, answer, { loraRequest: pirate });
    expect(isPirate(all!)).toBe(true);
    const mixed = await llm.chat([QUESTION, QUESTION], answer, { loraRequest: [null, pirate] });
    expect(mixed.map(isPirate)).toEqual([false, true]);
    // Known by its name from now on.
    const byName = new LoRARequest({ loraName: 'pirate' });
    const prompt = all!.promptTokenIds;
    const [beam] = await llm.beamSearch([prompt], { beamWidth: 1, maxTokens: 24, loraRequest: byName });
    expect(beam!.sequences[0]!.text).toContain('Arrr');
    const wrong = [
      new LoRARequest({ loraName: 'x' }),
      new LoRARequest({ loraName: 'x', loraPath: '/nowhere' }),
      [pirate],
    ];
    for (const loraRequest of wrong) {
      expect(llm.generate(['a', 'b'], answer, { loraRequest })).rejects.toThrow(ValidationError);
    }
  });

  test('in a program with requests that come and go', async () => {
    await using llm = await AsyncLLM.fromEngineArgs({
      model: 'demo',
      enableLora: true,
      logLevel: 'error',
      cpuThreads: 1,
    });
    await llm.addLora(pirate);
    let last: RequestOutput | null = null;
    for await (const output of llm.chat(QUESTION, answer, { loraRequest: pirate })) last = output;
    expect(isPirate(last!)).toBe(true);
    await llm.removeLora('pirate');
    expect(llm.removeLora('pirate')).rejects.toThrow("The lora adapter 'pirate' cannot be found.");
  });

  test('need enableLora', async () => {
    await using llm = await LLM.create({ model: 'demo', logLevel: 'error', maxModelLen: 512, cpuThreads: 1 });
    expect(llm.generate('a', answer, { loraRequest: pirate })).rejects.toThrow('LoRA is not enabled');
  });
});

describe('sleep', () => {
  const prompt = 'The capital of France is';
  const long = { temperature: 0, maxTokens: 200, ignoreEos: true };

  test('frees weights and KV cache; requests wait and are answered as before when it wakes', async () => {
    await using llm = await LLM.create({
      model: 'demo',
      logLevel: 'error',
      enableSleepMode: true,
      dataParallelSize: 2,
      cpuThreads: 2,
    });
    const [before] = await llm.generate(prompt, GREEDY);
    for (const level of [1, 2] as const) {
      await llm.sleep(level);
      expect(await llm.isSleeping()).toBe(true);
      let isAnswered = false;
      const waiting = llm.generate(prompt, GREEDY).finally(() => {
        isAnswered = true;
      });
      await llm.wakeUp(['weights']);
      expect([await llm.isSleeping(), isAnswered]).toEqual([true, false]);
      await llm.wakeUp(['kv_cache']);
      expect(await llm.isSleeping()).toBe(false);
      const [after] = await waiting;
      expect(after!.outputs[0]!.tokenIds).toEqual(before!.outputs[0]!.tokenIds);
    }
  });

  test('running requests are kept and computed anew, finished first, or aborted', async () => {
    await using llm = await AsyncLLM.fromEngineArgs({ model: 'demo', logLevel: 'error', enableSleepMode: true });
    const stream = async (onFirst: () => void) => {
      let last: RequestOutput | null = null;
      for await (const output of llm.generate(prompt, long)) {
        if (last === null) onFirst();
        last = output;
      }
      return last!.outputs[0]!;
    };
    const undisturbed = await stream(() => {});
    for (const mode of ['keep', 'wait', 'abort'] as const) {
      const asleep = Promise.withResolvers<void>();
      const answer = stream(() => llm.sleep(1, mode).then(asleep.resolve, asleep.reject));
      await asleep.promise;
      if (mode !== 'keep') expect((await answer).finishReason).toBe(mode === 'wait' ? 'length' : 'abort');
      await llm.wakeUp();
      if (mode !== 'abort') expect(await answer).toEqual(undisturbed);
    }
  });

  test('adapters are read again, whether they were in use or came while it slept', async () => {
    await using llm = await LLM.create({
      model: 'demo',
      logLevel: 'error',
      enableSleepMode: true,
      enableLora: true,
      loraModules: ['pirate=demo-pirate'],
    });
    const answerOf = async (loraName: string) => {
      const [output] = await llm.chat(QUESTION, long, { loraRequest: new LoRARequest({ loraName }) });
      return output!.outputs[0]!.text;
    };
    const before = await answerOf('pirate');
    const running = answerOf('pirate');
    await llm.sleep(1, 'keep');
    const late = new LoRARequest({ loraName: 'late', loraPath: 'demo-pirate' });
    const waiting = llm.chat(QUESTION, long, { loraRequest: late });
    await llm.wakeUp();
    expect(await running).toBe(before);
    expect((await waiting)[0]!.outputs[0]!.text).toBe(before);
    await llm.sleep(2);
    await llm.wakeUp();
    expect(await answerOf('late')).toBe(before);
  });

  test('needs its flag where it frees something', async () => {
    await using llm = await LLM.create({ model: 'demo', logLevel: 'error' });
    await expect(llm.sleep(1)).rejects.toThrow('--enable-sleep-mode');
    await llm.sleep(0);
    await llm.wakeUp();
    expect((await llm.generate(prompt, GREEDY))[0]!.finished).toBe(true);
  });
});
