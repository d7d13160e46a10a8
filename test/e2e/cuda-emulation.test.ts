import { describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { complete, post, startBao } from './bao-process.ts';

const EMULATION = ['demo', '--device', 'cuda-emulation', '--max-model-len', '256', '--max-num-seqs', '4'];
const REQUEST = { model: 'demo', prompt: 'Once upon a time', max_tokens: 8, temperature: 0 };

/** What makes each call of a function fail for lack of memory, up to a number that nobody comes to. */
const always = (call: string) => Array.from({ length: 400 }, (_, i) => `${call}@${i + 1}=2`).join();

describe('the demo model on emulated CUDA devices', () => {
  test('answers, the same alone and in a batch, on two devices', async () => {
    const server = await startBao([...EMULATION, '--data-parallel-size', '2']);
    const sampled = { ...REQUEST, temperature: 0.8, top_p: 0.9, seed: 7 };
    const [greedy, ...others] = await Promise.all([REQUEST, sampled, sampled].map((body) => complete(server, body)));
    expect(greedy!.choices[0]!.text).toStartWith(' there was a little boat');
    expect(others[0]!.choices[0]!.text).toBe(others[1]!.choices[0]!.text);
    expect(server.stderr()).toContain('CUDA emulation 0');
    expect(server.stderr()).toContain('CUDA emulation 1');
    expect(await server.stop()).toBe(0);
  });

  test('more engine cores than devices end the start in one sentence, before weights are read', async () => {
    const start = startBao([...EMULATION, '--data-parallel-size', '3']).catch((error: Error) => error.message);
    const log = (await start) as string;
    expect(log).toContain('ended with code 1');
    expect(log).toEndWith(
      '\nbao: --data-parallel-size 3 is more than the CUDA devices there are, 2: each engine core has one of its own.\n',
    );
    expect(log).not.toContain('weights');
  });

  test('graphs give the same bits as launches one by one', async () => {
    const bodies = [3, 7, 11].map((seed) => ({ ...REQUEST, temperature: 0.9, seed, max_tokens: 6, logprobs: 3 }));
    // A failure that a server without graphs never comes to.
    const env = { BAO_CUDA_EMULATION_FAIL: 'cudaStreamBeginCapture@1=2' };
    const [graphs, eager] = await Promise.all(
      [['--log-level', 'debug'], ['--enforce-eager']].map(async (flags, i) => {
        const server = await startBao([...EMULATION, ...flags], i === 0 ? {} : { env });
        const alone = await complete(server, { ...REQUEST, logprobs: 3 });
        const batch = await Promise.all(bodies.map((body) => complete(server, body)));
        expect(await server.stop()).toBe(0);
        return { choices: [alone, ...batch].map(({ choices }) => choices), log: server.stderr() };
      }),
    );
    expect(graphs!.choices).toEqual(eager!.choices);
    expect(eager!.log).not.toContain('cudaStreamBeginCapture');
    expect(graphs!.log).toMatch(/Memory.*weights.*KV cache/);
    expect(graphs!.log).toMatch(/captured as a CUDA graph.*bytes/);
  });

  test('answers with int4 weights and an fp8 cache', async () => {
    const server = await startBao([...EMULATION, '--quantization', 'int4', '--kv-cache-dtype', 'fp8']);
    const { choices } = await complete(server, REQUEST);
    expect(choices[0]!.text).toStartWith(' there was a little');
    expect(await server.stop()).toBe(0);
  });

  test('where a capture fails, one line says so and the answer is the same', async () => {
    const server = await startBao(EMULATION, { env: { BAO_CUDA_EMULATION_FAIL: 'cudaGraphInstantiate@2=2' } });
    const { choices } = await complete(server, REQUEST);
    expect(choices[0]!.text).toStartWith(' there was a little boat');
    expect(await server.stop()).toBe(0);
    expect(server.stderr().match(/No more CUDA graphs are made.*cudaErrorMemoryAllocation/g)).toHaveLength(1);
  });

  test('too little memory for the model ends the start with a sentence that says what holds it', async () => {
    const server = await startBao(EMULATION, {
      waitUntilReady: false,
      env: { BAO_CUDA_EMULATION_MEMORY: String(9 << 20) },
    });
    expect(await server.exited).toBe(1);
    expect(server.stderr()).toContain('the CUDA device is out of memory');
    expect(server.stderr()).toContain('for weights');
  });

  test('a machine without a device is told so', async () => {
    const server = await startBao(EMULATION, { waitUntilReady: false, env: { BAO_CUDA_EMULATION_DEVICES: '0' } });
    expect(await server.exited).toBe(1);
    expect(server.stderr()).toContain('no CUDA device:');
  });

  test('an adapter that device memory has no room for is refused, and the server goes on', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bao-failures-'));
    const file = join(folder, 'failures');
    const server = await startBao([...EMULATION, '--enable-lora'], {
      env: { BAO_CUDA_EMULATION_FAIL_FILE: file, BAO_ALLOW_RUNTIME_LORA_UPDATING: '1' },
    });
    const load = () =>
      fetch(`${server.url}/v1/load_lora_adapter`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ lora_name: 'pirate', lora_path: 'demo-pirate' }),
      });
    writeFileSync(file, `${always('cudaMalloc')}\n`);
    const refused = await load();
    expect(refused.status).toBe(400);
    expect(await refused.text()).toContain('the CUDA device is out of memory');
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    writeFileSync(file, 'none@1=0\n');
    expect((await load()).status).toBe(200);
    const { choices } = await complete(server, { ...REQUEST, model: 'pirate' });
    expect(choices[0]!.text).not.toBe('');
    expect(await server.stop()).toBe(0);
    rmSync(folder, { recursive: true });
  });

  test('where memory has run out requests are answered all the same, but for one that needs some for itself', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bao-failures-'));
    const file = join(folder, 'failures');
    const server = await startBao([...EMULATION, '--max-logprobs', '-1'], {
      env: { BAO_CUDA_EMULATION_FAIL_FILE: file },
    });
    const short = { ...REQUEST, max_tokens: 3 };
    const bodies = [
      { ...short, prompt: REQUEST.prompt.repeat(5), logprobs: 5, temperature: 0.8, top_p: 0.9, seed: 3 },
      { ...short, logit_bias: { 5: 3 }, stop: ['boat'] },
    ];
    const ask = () => Promise.all(bodies.map((body) => complete(server, body)));
    const before = await ask();
    writeFileSync(file, `${['cudaMalloc', 'cudaHostAlloc', 'cudaGraphInstantiate'].map(always).join()}\n`);
    // Every token's log probability, at each place of the prompt: nothing that lies ready has room for them.
    const large = { ...short, prompt: REQUEST.prompt.repeat(5), prompt_logprobs: -1 };
    const [refused, answered] = await Promise.all([post(`${server.url}/v1/completions`, large), ask()]);
    expect(refused).toEqual({
      status: 500,
      body: {
        error: expect.objectContaining({
          type: 'InternalServerError',
          message: expect.stringContaining('not enough memory for the log probabilities'),
        }),
      },
    });
    expect(answered.map(({ choices }) => choices)).toEqual(before.map(({ choices }) => choices));
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    expect(await server.stop()).toBe(0);
    rmSync(folder, { recursive: true });
  });

  test('sleeping gives back all memory; a server that has none to wake with sleeps on, and wakes when there is some', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bao-failures-'));
    const file = join(folder, 'failures');
    const server = await startBao([...EMULATION, '--enable-sleep-mode', '--log-level', 'debug'], {
      env: { BAO_CUDA_EMULATION_FAIL_FILE: file, BAO_SERVER_DEV_MODE: '1' },
    });
    const call = async (path: string) => (await fetch(`${server.url}${path}`, { method: 'POST' })).status;
    const { choices } = await complete(server, REQUEST);
    expect(await call('/sleep?level=1')).toBe(200);
    const [asleep] = await server.logged(/Asleep: .*/);
    expect(asleep).not.toMatch(/weights=|KV cache=|CUDA graphs=|token table=|step inputs=|sampling=/);
    for (const failures of ['cudaMalloc@1=2,cudaMalloc@2=2', always('cudaHostAlloc')]) {
      writeFileSync(file, `${failures}\n`);
      expect(await call('/wake_up')).toBe(500);
      expect(await (await fetch(`${server.url}/is_sleeping`)).json()).toEqual({ is_sleeping: true });
      expect((await fetch(`${server.url}/health`)).status).toBe(200);
    }
    writeFileSync(file, 'none@1=0\n');
    expect(await call('/wake_up')).toBe(200);
    expect((await complete(server, REQUEST)).choices).toEqual(choices);
    const reports = server.stderr().match(/\[worker\] Memory .*/g)!;
    expect(reports).toHaveLength(2);
    expect(reports[1]).toBe(reports[0]!);
    expect(await server.stop()).toBe(0);
    rmSync(folder, { recursive: true });
  });

  // Each is the next call of its kind once the server is ready.
  for (const [what, call, code, reason, flags] of [
    ['a launch that is refused', 'launch', 719, 'cudaErrorLaunchFailure', ['--enforce-eager']],
    ['a launch that there is no memory for', 'launch', 2, 'cudaErrorMemoryAllocation', ['--enforce-eager']],
    ['a graph that is refused', 'cudaGraphLaunch', 719, 'cudaErrorLaunchFailure', []],
    ['a copy on a device that faulted', 'cudaMemcpyAsync', 700, 'cudaErrorIllegalAddress', []],
    ['an event that is refused', 'cudaEventRecord', 2, 'cudaErrorMemoryAllocation', []],
    ['a fault that shows at a wait', 'cudaEventSynchronize', 719, 'cudaErrorLaunchFailure', []],
    ['a product that fails', 'cublasGemmEx', 13, 'CUBLAS_STATUS_EXECUTION_FAILED', ['--enforce-eager']],
  ] as const) {
    test(`${what}: the request gets an error, and /health says why`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'bao-failures-'));
      const file = join(folder, 'failures');
      const server = await startBao([...EMULATION, ...flags], {
        env: { BAO_CUDA_EMULATION_FAIL_FILE: file, BAO_KEEP_ALIVE_ON_ENGINE_DEATH: '1' },
      });
      expect((await fetch(`${server.url}/health`)).status).toBe(200);
      writeFileSync(file, `${call}@1=${code}\n`);
      // Long enough for products of many rows, which are cuBLAS's.
      const body = { ...REQUEST, prompt: REQUEST.prompt.repeat(20), max_tokens: 100, ignore_eos: true };
      // More than run at once: those that wait are answered too.
      const answers = await Promise.all(Array.from({ length: 6 }, () => post(`${server.url}/v1/completions`, body)));
      expect(answers.some(({ status }) => status === 500)).toBe(true);
      for (const { status, body: answered } of answers) {
        // One that the server reads only after the failure is refused like any later one.
        const type = status === 503 ? 'ServiceUnavailableError' : 'InternalServerError';
        expect(answered).toMatchObject({ error: { type, code: status === 503 ? 503 : 500 } });
      }
      const later = await post(`${server.url}/v1/completions`, body);
      expect(later.status).toBe(503);
      expect(later.body).toMatchObject({ error: { type: 'ServiceUnavailableError', code: 503 } });
      const health = await fetch(`${server.url}/health`);
      expect(health.status).toBe(503);
      expect(await health.text()).toContain(reason);
      server.kill('SIGKILL');
      await server.exited;
      rmSync(folder, { recursive: true });
    });
  }
});
