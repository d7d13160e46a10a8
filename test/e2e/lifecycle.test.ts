import { describe, expect, test } from 'bun:test';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { complete, post, startBao } from './bao-process.ts';

const FAULT_PLUGIN = ['--plugin', 'test/fixtures/fault-plugin.ts'];
const LONG_PROMPT = Array.from({ length: 150 }, (_, i) => 300 + i);

async function health(url: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`${url}/health`);
  return { status: response.status, text: await response.text() };
}

describe('start', () => {
  test('it says where it listens, with a curl line that works', async () => {
    const server = await startBao(['demo', '--served-model-name', 'first', 'second']);
    const curl = (await server.logged(/curl (\S+) -H '([^']+)' -d '(.*)'/))!;
    const { status, body } = await post(curl[1]!, curl[3]!);
    expect(status).toBe(200);
    expect((body as { model: string }).model).toBe('first');
    expect(await health(server.url)).toMatchObject({ status: 200 });
    if (process.platform === 'linux') {
      const shown = (file: string) => readFileSync(`/proc/${server.pid}/${file}`, 'utf8').replace(/[\n\0]+$/, '');
      expect([shown('comm'), shown('cmdline')]).toEqual(['bao first', 'bao first']);
    }
    expect(await server.stop()).toBe(0);
  });

  test('a port in use ends it at once, before the model is loaded', async () => {
    const other = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response() });
    const server = await startBao(['demo'], {
      waitUntilReady: false,
      address: ['--host', '127.0.0.1', '--port', String(other.port)],
    });
    expect(await server.exited).toBe(1);
    expect(server.stderr()).toContain('in use already');
    expect(server.stderr()).not.toContain('Loading weights');
    await other.stop(true);
  });

  test('a model folder without weights, an unknown model and a bad flag are told in one sentence', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bao-'));
    await Bun.write(join(folder, 'config.json'), Bun.file('models/demo/config.json'));
    const cases: [string[], number, string][] = [
      [[folder, '--skip-tokenizer-init'], 1, 'safetensors'],
      [['demo', '--max-num-seqz', '3'], 2, '--max-num-seqs'],
      [['demo', '--distributed-executor-backend', 'ray'], 1, 'ray'],
      [['demo', '--plugin', './no-such-plugin.ts'], 1, 'no-such-plugin'],
      [['demo', '--kv-cache-memory-bytes', '1000'], 1, 'max_model_len'],
    ];
    for (const [args, code, text] of cases) {
      const server = await startBao(args, { waitUntilReady: false });
      expect(await server.exited, args.join(' ')).toBe(code);
      expect(server.stderr().toLowerCase()).toContain(text.toLowerCase());
      expect(server.stderr(), 'no stack').not.toContain('    at ');
    }
    rmSync(folder, { recursive: true });
  });

  test('--max-model-len auto takes what the KV cache has room for', async () => {
    const server = await startBao(['demo', '--max-model-len', 'auto', '--num-gpu-blocks-override', '20']);
    const models = (await (await fetch(`${server.url}/v1/models`)).json()) as { data: { max_model_len: number }[] };
    expect(models.data[0]!.max_model_len).toBeLessThanOrEqual(19 * 16);
    expect(models.data[0]!.max_model_len).toBeGreaterThan(200);
    await server.stop();
  });

  test('a Unix socket instead of a port', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bao-'));
    const path = join(folder, 'bao.sock');
    const server = await startBao(['demo', '--uds', path], { waitUntilReady: false, address: [] });
    await server.logged(/Ready after/);
    const response = await fetch('http://localhost/health', { unix: path });
    expect(response.status).toBe(200);
    const second = await startBao(['demo', '--uds', path], { waitUntilReady: false, address: [] });
    expect(await second.exited).toBe(1);
    expect(second.stderr()).toContain('in use already');
    expect((await fetch('http://localhost/health', { unix: path })).status).toBe(200);

    server.kill('SIGKILL');
    await server.exited;
    expect(existsSync(path), 'what a killed server leaves behind').toBe(true);
    const next = await startBao(['demo', '--uds', path], { waitUntilReady: false, address: [] });
    await next.logged(/Ready after/);
    expect(await next.stop()).toBe(0);
    rmSync(folder, { recursive: true });
  });
});

describe('end', () => {
  test('SIGTERM while the model loads: the end, with 0', async () => {
    const server = await startBao(['demo', ...FAULT_PLUGIN, '--distributed-executor-backend', 'loading-forever'], {
      waitUntilReady: false,
    });
    await server.logged(/Loading for ever/);
    server.kill('SIGTERM');
    expect(await server.exited).toBe(0);
    expect(server.stderr()).not.toContain('Ready after');
  });

  test('SIGTERM with a deadline: what runs is finished, what comes is refused', async () => {
    const server = await startBao(['demo', '--shutdown-timeout', '600', '--enable-request-id-headers'], {
      slow: 'slow',
    });
    const running = complete(server, { model: 'demo', prompt: 'Hello', max_tokens: 300, ignore_eos: true });
    await untilRunning(server.url, 1);
    // `bun run` passes on a signal that the server has got too.
    server.kill('SIGTERM');
    server.kill('SIGINT');
    await server.logged(/no new requests/);
    const refused = await fetch(`${server.url}/health`, { headers: { 'X-Request-Id': 'probe-7' } });
    expect([refused.status, refused.headers.get('Retry-After')]).toEqual([503, '1']);
    expect(refused.headers.get('X-Request-Id')).toBe('probe-7');
    expect((await post(`${server.url}/v1/completions`, { model: 'demo', prompt: 'Hi' })).status).toBe(503);
    server.hurry();
    expect((await running).usage.completion_tokens).toBe(300);
    expect(await server.exited).toBe(0);
  });

  test('without a deadline what runs gets an error and the server ends with 0', async () => {
    const server = await startBao(['demo'], { slow: 'slow' });
    const running = post(`${server.url}/v1/completions`, {
      model: 'demo',
      prompt: 'Hello',
      max_tokens: 4000,
      ignore_eos: true,
    });
    await untilRunning(server.url, 1);
    server.kill('SIGINT');
    const { status, body } = await running;
    expect(status).toBeGreaterThanOrEqual(500);
    expect(JSON.stringify(body)).toContain('shutting down');
    expect(await server.exited).toBe(0);
  });

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('a second %s stops at once', async (signal, exitCode) => {
    const server = await startBao(['demo', '--shutdown-timeout', '1000'], { slow: 'slow' });
    post(`${server.url}/v1/completions`, { model: 'demo', prompt: 'Hello', max_tokens: 4000, ignore_eos: true }).catch(
      () => {},
    );
    await untilRunning(server.url, 1);
    server.kill(signal);
    await server.logged(/no new requests/);
    const again = setInterval(() => server.kill(signal), 200);
    expect(await server.exited).toBe(exitCode);
    clearInterval(again);
  });
});

describe('a core that fails', () => {
  test('while it loads: its own error text, exit code 1', async () => {
    const server = await startBao(['demo', ...FAULT_PLUGIN, '--distributed-executor-backend', 'unloadable'], {
      waitUntilReady: false,
    });
    expect(await server.exited).toBe(1);
    expect(server.stderr()).toContain('injected fault while loading');
  });

  test('while it loads for too long: the deadline, in one sentence, exit code 1', async () => {
    const server = await startBao(['demo', ...FAULT_PLUGIN, '--distributed-executor-backend', 'loading-forever'], {
      waitUntilReady: false,
      env: { BAO_ENGINE_READY_TIMEOUT_S: '1' },
    });
    expect(await server.exited).toBe(1);
    // On a machine that is slow enough the libraries are late already.
    expect(server.stderr()).toMatch(/^bao: Engine core 0 (is not ready|did not load its libraries) .*within 1 s\.$/m);
    expect(server.stderr(), 'no stack').not.toContain('    at ');
  });

  test('in a step: running requests get an error, /health says why, also where the server is to stay', async () => {
    const server = await startBao(['demo'], { slow: 'crashing', env: { BAO_KEEP_ALIVE_ON_ENGINE_DEATH: '1' } });
    const running = post(`${server.url}/v1/completions`, {
      model: 'demo',
      prompt: 'Hello',
      max_tokens: 4000,
      ignore_eos: true,
    });
    await untilRunning(server.url, 1);
    const fatal = await post(`${server.url}/v1/completions`, { model: 'demo', prompt: LONG_PROMPT });
    expect(fatal.status).toBe(500);
    expect((await running).status).toBe(500);
    const { status, text } = await health(server.url);
    expect(status).toBe(503);
    expect(text).toContain('injected fault in the step');
    expect(await server.stop()).toBe(1);
    expect(server.stderr()).toContain('injected fault in the step');
  });

  test('while the server drains: what runs gets an error long before the deadline, and the process ends with 1', async () => {
    const server = await startBao([
      ...['demo', ...FAULT_PLUGIN, '--distributed-executor-backend', 'crashing-later'],
      ...['--shutdown-timeout', '100', '--data-parallel-size', '2', '--cpu-threads', '2', '--api-server-count', '2'],
    ]);
    const running = post(`${server.url}/v1/completions`, {
      ...{ model: 'demo', prompt: 'Hello', max_tokens: 4000, ignore_eos: true },
    });
    await untilRunning(server.url, 1);
    server.kill('SIGTERM');
    const { status, body } = await running;
    expect(status).toBe(500);
    expect(JSON.stringify(body)).toContain('injected fault in a later step');
    expect(await server.exited).toBe(1);
  });

  test('by ending its thread: running requests get an error, the process ends with 1', async () => {
    const server = await startBao(['demo', ...FAULT_PLUGIN, '--distributed-executor-backend', 'exiting']);
    const fatal = await post(`${server.url}/v1/completions`, { model: 'demo', prompt: LONG_PROMPT });
    expect(fatal.status).toBe(500);
    expect(await server.exited).toBe(1);
    expect(server.stderr()).toContain('Engine core 0 died');
  });

  test('by hanging in a step: the watch finds it', async () => {
    const server = await startBao(['demo', ...FAULT_PLUGIN, '--distributed-executor-backend', 'hanging'], {
      env: { BAO_ENGINE_STEP_TIMEOUT_S: '3', BAO_KEEP_ALIVE_ON_ENGINE_DEATH: '1' },
    });
    const fatal = await post(`${server.url}/v1/completions`, { model: 'demo', prompt: LONG_PROMPT });
    expect(fatal.status).toBe(500);
    expect((await health(server.url)).text).toContain('loop has not turned');
    expect((await post(`${server.url}/v1/completions`, { model: 'demo', prompt: 'Hi' })).status).toBe(503);
    server.kill('SIGKILL');
    await server.exited;
  });

  test("a plugin's route is served", async () => {
    const server = await startBao(['demo', ...FAULT_PLUGIN]);
    expect(await (await fetch(`${server.url}/plugin`)).json()).toEqual({ plugin: 'fault' });
    await server.stop();
  });
});

/** Polls until so many requests run; the test's deadline ends it otherwise. */
async function untilRunning(url: string, count: number): Promise<void> {
  for (;;) {
    const text = await (await fetch(`${url}/metrics`)).text();
    if (Number(text.match(/^vllm:num_requests_running\{.*\} (\d+)/m)?.[1]) >= count) return;
    await Bun.sleep(10);
  }
}
