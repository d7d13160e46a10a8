import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { resolve } from 'node:path';
import { type BaoProcess, complete, startBao } from './bao-process.ts';

const LLAMA = resolve(import.meta.dir, '../goldens/llama');
/** Weights of about 200 MB, made up at load: what is freed must show, whatever else the process takes meanwhile. */
const WIDE = {
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 6,
  num_attention_heads: 16,
  head_dim: 64,
};
const WEIGHT_BYTES = 140e6;

describe('a server in development mode', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao(
      [
        ...[LLAMA, '--load-format', 'dummy', '--skip-tokenizer-init', '--hf-overrides', JSON.stringify(WIDE)],
        ...['--enable-sleep-mode', '--api-server-count', '2', '--cpu-threads', '2'],
      ],
      { env: { BAO_SERVER_DEV_MODE: '1' } },
    );
  });
  afterAll(() => server.stop());

  const call = async (path: string) => (await fetch(`${server.url}${path}`, { method: 'POST' })).status;
  const isSleeping = async () => (await (await fetch(`${server.url}/is_sleeping`)).json()).is_sleeping;
  /** The first value of a metric whose labels hold this. */
  const metric = async (name: string, label = '') => {
    const lines = (await (await fetch(`${server.url}/metrics`)).text()).split('\n');
    return Number(
      lines
        .find((line) => line.startsWith(name) && line.includes(label))
        ?.split(' ')
        .at(-1),
    );
  };
  const answer = async () => {
    const prompt = [5, 6, 7, 8];
    const body = await complete(server, {
      prompt,
      max_tokens: 6,
      temperature: 0,
      ignore_eos: true,
      return_token_ids: true,
    });
    return body.choices[0]!.token_ids;
  };

  test('sleeping frees the memory of the weights, on the word of the system; waking brings the same answers back', async () => {
    const before = await answer();
    const awakeBytes = await metric('process_resident_memory_bytes');
    for (const [level, state] of [
      [1, 'weights_offloaded'],
      [2, 'discard_all'],
    ] as const) {
      expect(await call(`/sleep?level=${level}`)).toBe(200);
      expect(await isSleeping()).toBe(true);
      expect((await fetch(`${server.url}/health`)).status).toBe(200);
      expect(awakeBytes - (await metric('process_resident_memory_bytes'))).toBeGreaterThan(WEIGHT_BYTES);
      expect(await metric('vllm:engine_sleep_state', state)).toBe(1);
      expect(await metric('vllm:engine_sleep_state', 'awake')).toBe(0);

      let isAnswered = false;
      const waiting = answer().finally(() => {
        isAnswered = true;
      });
      while ((await metric('vllm:num_requests_waiting_by_reason', 'deferred')) !== 1) await Bun.sleep(10);
      expect(isAnswered).toBe(false);
      expect(await call('/wake_up?tags=weights')).toBe(200);
      expect(await isSleeping()).toBe(true);
      expect(await call('/wake_up')).toBe(200);
      expect(await waiting).toEqual(before);
      expect(await metric('vllm:engine_sleep_state', 'awake')).toBe(1);
    }
  });
});
