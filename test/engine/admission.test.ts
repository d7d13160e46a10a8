import { afterEach, expect, test } from 'bun:test';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';
import { AsyncLLM } from '../../src/engine/async-llm.ts';
import { createCoreLink } from '../../src/engine/core-link.ts';
import { CoreStatus } from '../../src/engine/core-status.ts';
import { NO_OBSERVER, overrideObserver } from '../../src/engine/observer.ts';
import { QueueFullError } from '../../src/errors/queue-full-error.ts';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';

const open: { close(): void }[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each.close();
});

/** A client of a core that takes nothing from its ring: what is sent stays queued. */
async function clientWith(flags: Partial<FlagValues>) {
  const config = await new EngineArgs({ model: 'demo', ...flags }).createEngineConfig();
  const { client } = createCoreLink(0, 0, CoreStatus.create(1));
  const rejected: string[] = [];
  const observer = overrideObserver(NO_OBSERVER, { onRejected: (reason) => rejected.push(reason) });
  const llm = new AsyncLLM(config, [client], null, observer);
  open.push(llm);
  let nextId = 0;
  const add = (promptLength: number, n = 1) => {
    const requestId = String(nextId++);
    const promptTokenIds = new Int32Array(promptLength).fill(300);
    llm.addRequest(
      { requestId, promptTokenIds, params: { ...DEFAULT_SAMPLING_PARAMS, n } },
      { onOutput() {}, onError() {} },
    );
    return requestId;
  };
  return { llm, add, rejected };
}

test('--max-num-queued-reqs counts every sequence in flight', async () => {
  const { add, rejected } = await clientWith({ maxNumQueuedReqs: 3 });
  add(5, 2);
  expect(() => add(5, 2)).toThrow(QueueFullError);
  add(5);
  expect(() => add(5)).toThrow('3 requests in flight, the limit is 3');
  expect(rejected).toEqual(['queue_full', 'queue_full']);
});

test('--max-num-queued-tokens counts requests that are pooled', async () => {
  const { llm } = await clientWith({ maxNumQueuedTokens: 15, runner: 'pooling' });
  const pooling = { task: 'embed', dimensions: null, useActivation: true, firstTypeOne: null } as const;
  const sink = { onOutput() {}, onError() {} };
  const add = (requestId: string) =>
    llm.addPoolingRequest({ requestId, promptTokenIds: new Int32Array(15).fill(300), pooling }, sink);
  add('a');
  expect(() => add('b')).toThrow('a backlog of 15 prompt tokens, the limit is 15');
  llm.abort('a');
  add('b');
});

test('0 of --max-num-queued-reqs takes nothing', async () => {
  const { add } = await clientWith({ maxNumQueuedReqs: 0 });
  expect(() => add(5)).toThrow(QueueFullError);
});

test('--max-num-queued-tokens looks at the prompts that wait for their first token', async () => {
  const { llm, add, rejected } = await clientWith({ maxNumQueuedTokens: 15 });
  const first = add(10);
  add(10);
  expect(() => add(1)).toThrow('a backlog of 20 prompt tokens, the limit is 15');
  expect(rejected).toEqual(['queued_tokens']);
  llm.abort(first);
  add(1);
});
