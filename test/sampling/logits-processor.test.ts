import { describe, expect, test } from 'bun:test';
import { ValidationError } from '../../src/errors/validation-error.ts';
import { type BatchedRequest, LogitsProcessorRegistry } from '../../src/sampling/logits-processor.ts';
import { RequestLogitsProcessors } from '../../src/sampling/request-logits-processors.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';

const withArgs = (extraArgs: SamplingParams['extraArgs']): SamplingParams => ({
  ...DEFAULT_SAMPLING_PARAMS,
  extraArgs,
});

const request: BatchedRequest = {
  requestId: 'r',
  params: withArgs(null),
  promptTokenIds: Int32Array.of(1, 2),
  outputTokenIds: [3],
  vocabSize: 4,
};

describe('which processors apply to a request', () => {
  const registry = new LogitsProcessorRegistry();
  const addRequest = () => ({ apply() {} });
  registry.register('everyone', { addRequest });
  registry.register('asked', {
    extraArgs: ['a', 'b'],
    validateParams: ({ extraArgs }) => {
      if (extraArgs?.a === 'wrong') throw new Error('a must not be wrong.');
    },
    addRequest,
  });
  registry.register('greedy', { appliesTo: ({ temperature }) => temperature === 0, addRequest });

  test('those without parameters, those with one that is there, those that say so', () => {
    expect(registry.resolve(withArgs(null))).toEqual(['everyone']);
    expect(registry.resolve(withArgs({ b: null }))).toEqual(['everyone', 'asked']);
    expect(registry.resolve({ ...withArgs({ a: 1 }), temperature: 0 })).toEqual(['everyone', 'asked', 'greedy']);
  });

  test('what one refuses, and what none reads, is a mistake of the client', () => {
    expect(() => registry.resolve(withArgs({ a: 'wrong' }))).toThrow(
      new ValidationError('a must not be wrong.', 'vllm_xargs'),
    );
    expect(() => registry.resolve(withArgs({ a: 1, c: 2 }))).toThrow('`vllm_xargs.c` is not supported by this server');
  });
});

describe('the processors of a request', () => {
  test('are applied in order, with the output up to date, and hear of its end', () => {
    const registry = new LogitsProcessorRegistry();
    const heard: string[] = [];
    for (const name of ['first', 'second']) {
      registry.register(name, {
        addRequest: ({ outputTokenIds }) => ({
          apply: (logits) => {
            heard.push(`${name} ${outputTokenIds}`);
            logits[0]! *= name === 'first' ? 2 : -1;
          },
          remove: () => heard.push(`${name} removed`),
        }),
      });
    }
    const processors = new RequestLogitsProcessors(['first', 'second'], request, registry);
    const logits = Float32Array.of(1, 0, 0, 0);
    expect(processors.apply(logits)).toBe(true);
    processors.appendToken(2);
    expect(processors.apply(logits)).toBe(true);
    processors.remove();
    expect(logits[0]).toBe(4);
    expect(heard).toEqual(['first 3', 'second 3', 'first 3,2', 'second 3,2', 'first removed', 'second removed']);
    expect(request.outputTokenIds).toEqual([3]);
  });

  test('fail for good, each with its name', () => {
    const registry = new LogitsProcessorRegistry();
    let numCalls = 0;
    registry.register('bad', {
      addRequest: () => ({
        apply: () => {
          numCalls++;
          throw 'not even an Error';
        },
      }),
    });
    const processors = new RequestLogitsProcessors(['bad'], request, registry);
    expect(processors.failure).toBeNull();
    expect(processors.apply(new Float32Array(4))).toBe(false);
    expect(processors.apply(new Float32Array(4))).toBe(false);
    expect(processors.failure).toBe('The logits processor bad has failed.');
    expect(numCalls).toBe(1);
    expect(new RequestLogitsProcessors(['absent'], request, registry).failure).toContain('absent');
  });
});
