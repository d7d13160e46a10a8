import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type BaoProcess, type CompletionBody, complete, inOneStep, post, startBao } from './bao-process.ts';

const ROOT = resolve(import.meta.dir, '../..');
const PIRATE = join(ROOT, 'models/demo-pirate');
const QUESTIONS = ['What is the capital of France?', 'What is 2 + 2?', 'What is the opposite of hot?'];
const LORA = ['--enable-lora', '--lora-modules', 'pirate=demo-pirate'];

/** What a pirate says, and nobody else. */
const isPirate = (text: string) => /arrr|matey|ahoy|aye/i.test(text);

async function chat(server: BaoProcess, model: string, question: string, extra: object = {}): Promise<string> {
  const request = { model, messages: [{ role: 'user', content: question }], temperature: 0, max_tokens: 32, ...extra };
  const { status, body } = await post(`${server.url}/v1/chat/completions`, request);
  expect([status, (body as { model?: string }).model]).toEqual([200, model]);
  return (body as { choices: { message: { content: string } }[] }).choices[0]!.message.content;
}

/** Greedy tokens and their log probabilities, bit for bit. */
async function tokens(server: BaoProcess, model: string, prompt: string) {
  const body = await complete(server, {
    model,
    prompt,
    temperature: 0,
    max_tokens: 24,
    ignore_eos: true,
    logprobs: 1,
    return_token_ids: true,
  });
  const [{ token_ids, logprobs }] = body.choices as [CompletionBody['choices'][number] & { logprobs: unknown }];
  return { token_ids, logprobs };
}

const load = (server: BaoProcess, name: string, path: string, extra: object = {}) =>
  fetch(`${server.url}/v1/load_lora_adapter`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Connection: 'close' },
    body: JSON.stringify({ lora_name: name, lora_path: path, ...extra }),
  });

describe('a pirate beside the base model', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    const small = [
      '--max-num-batched-tokens',
      '64',
      '--max-num-seqs',
      '16',
      '--num-gpu-blocks-override',
      '34',
      '--max-model-len',
      '512',
      '--server-dev-mode',
    ];
    server = await startBao(['demo', ...LORA, ...small]);
  });
  afterAll(() => server.stop());

  test('answers as a pirate, at the same time as the base does not', async () => {
    const both = QUESTIONS.flatMap((question) => ['pirate', 'demo'].map((model) => chat(server, model, question)));
    const answers = await Promise.all(both);
    expect(answers.map(isPirate)).toEqual(QUESTIONS.flatMap(() => [true, false]));
    expect(answers.slice(0, 2).every((text) => text.includes('Paris'))).toBe(true);
  });

  test('answers alike by every endpoint', async () => {
    const responses = await post(`${server.url}/v1/responses`, {
      model: 'pirate',
      input: QUESTIONS[0],
      temperature: 0,
      max_output_tokens: 32,
    });
    expect(JSON.stringify(responses.body)).toMatch(/Arrr/);
    const messages = [{ role: 'user', content: QUESTIONS[0] }];
    const anthropic = await post(`${server.url}/v1/messages`, {
      model: 'pirate',
      messages,
      temperature: 0,
      max_tokens: 32,
    });
    expect(JSON.stringify(anthropic.body)).toMatch(/Arrr/);
  });

  test('the prefix cache of one is not that of the other', async () => {
    const prompt = `${'The quick brown fox jumps over the lazy dog. '.repeat(6)}And then`;
    const first = await tokens(server, 'pirate', prompt);
    expect(await tokens(server, 'demo', prompt)).not.toEqual(first);
    expect(await tokens(server, 'pirate', prompt)).toEqual(first);
  });

  test('greedy output is the same alone and mixed, chunked, preempted and from the prefix cache', async () => {
    const prompts = [...QUESTIONS, 'Once upon a time', `${'A long sentence about nothing at all, '.repeat(9)}the end`];
    const jobs = prompts.flatMap(
      (prompt) =>
        [
          ['pirate', prompt],
          ['demo', prompt],
        ] as const,
    );
    const plain = await startBao([
      'demo',
      ...LORA,
      '--no-enable-prefix-caching',
      '--no-async-scheduling',
      '--cpu-threads',
      '1',
    ]);
    try {
      const alone = [];
      for (const [model, prompt] of jobs) alone.push(await tokens(plain, model, prompt));
      const twice = [...jobs, ...jobs];
      const mixed = await inOneStep(
        server,
        twice.map(
          ([model, prompt]) =>
            () =>
              tokens(server, model, prompt),
        ),
      );
      expect(mixed).toEqual([...alone, ...alone]);
      const metrics = await (await fetch(`${server.url}/metrics`)).text();
      expect(Number(metrics.match(/^vllm:num_preemptions_total\{.*\} (\d+)/m)?.[1])).toBeGreaterThan(0);
    } finally {
      await plain.stop();
    }
  });

  test('metrics tell the adapters', async () => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    expect(text).toMatch(
      /^vllm:lora_requests_info\{max_lora="1",running_lora_adapters="(pirate)?",waiting_lora_adapters="(pirate)?"\} \d+/m,
    );
  });

  test('no request loads adapters unless the operator allows it', async () => {
    expect((await load(server, 'x', PIRATE)).status).toBe(404);
  });
});

describe('adapters that come and go, on two cores behind two API servers', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-lora-'));
  let server: BaoProcess;
  beforeAll(async () => {
    for (const name of ['a', 'b', 'c']) cpSync(PIRATE, join(folder, name), { recursive: true });
    const sizes = [
      '--data-parallel-size',
      '2',
      '--cpu-threads',
      '2',
      '--api-server-count',
      '2',
      '--max-loras',
      '1',
      '--max-cpu-loras',
      '2',
    ];
    server = await startBao(['demo', '--enable-lora', ...sizes, '-q', 'int8'], {
      env: { BAO_ALLOW_RUNTIME_LORA_UPDATING: '1' },
    });
  });
  afterAll(async () => {
    await server.stop();
    rmSync(folder, { recursive: true });
  });

  /** Fresh connections, so that both API servers are asked. */
  const models = async () => {
    const response = await fetch(`${server.url}/v1/models`, { headers: { Connection: 'close' } });
    return ((await response.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
  };

  test('once loaded, every API server and every core has it; more than fit in memory take turns', async () => {
    for (const name of ['a', 'b', 'c']) {
      expect((await load(server, name, join(folder, name))).status).toBe(200);
      for (let i = 0; i < 4; i++) expect(await models()).toContain(name);
    }
    const jobs = Array.from({ length: 24 }, (_, i) => ['a', 'b', 'c', 'demo'][i % 4]!);
    const answers = await Promise.all(jobs.map((model) => chat(server, model, QUESTIONS[0]!)));
    expect(answers.map(isPirate)).toEqual(jobs.map((model) => model !== 'demo'));
    expect(new Set(answers.filter(isPirate)).size).toBe(1);
  });

  test('unloaded, it is nowhere; a request that has it ends with it', async () => {
    const request = { prompt: QUESTIONS[0], temperature: 0, ignore_eos: true, max_tokens: 200 };
    // Of the same files.
    const expected = (await complete(server, { ...request, model: 'b' })).choices[0]!.text;
    const running = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ ...request, model: 'a', stream: true }),
    });
    const reader = running.body!.getReader();
    const parts: Uint8Array[] = [];
    const streamed = () => Buffer.concat(parts).toString();
    while (!streamed().includes('data: ')) parts.push((await reader.read()).value!);

    const gone = await post(`${server.url}/v1/unload_lora_adapter`, { lora_name: 'missing' });
    expect(gone.status).toBe(404);
    const unload = await fetch(`${server.url}/v1/unload_lora_adapter`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ lora_name: 'a' }),
    });
    expect(unload.status).toBe(200);
    for (let i = 0; i < 4; i++) expect(await models()).toEqual(['demo', 'b', 'c']);

    for (let next = await reader.read(); !next.done; next = await reader.read()) parts.push(next.value);
    const events = streamed()
      .split('\n\n')
      .filter((event) => event.startsWith('data: {'));
    expect(events.map((event) => JSON.parse(event.slice(6)).choices[0].text).join('')).toBe(expected);
    const { status } = await post(`${server.url}/v1/completions`, { model: 'a', prompt: 'x' });
    expect(status).toBe(404);
  });

  test('files that can not be an adapter are a 400 that says why; the server goes on', async () => {
    await Bun.write(join(folder, 'b/adapter_model.safetensors'), 'no safetensors at all');
    const refused = await load(server, 'b2', join(folder, 'b'));
    expect([refused.status, await refused.text()]).toEqual([400, expect.stringContaining('not a safetensors file')]);
    expect(await models()).not.toContain('b2');
    expect((await load(server, 'b', PIRATE, { load_inplace: true })).status).toBe(200);
    expect(isPirate(await chat(server, 'b', QUESTIONS[1]!))).toBe(true);
  });

  test('files that are gone when they are needed again fail their requests alone', async () => {
    rmSync(join(folder, 'c'), { recursive: true });
    // A core lets go of a finished request's adapter in its next step.
    for (const rank of ['0', '1']) {
      const headers = { 'Content-Type': 'application/json', 'X-data-parallel-rank': rank };
      const body = JSON.stringify({ model: 'demo', prompt: 'x', max_tokens: 2 });
      expect((await fetch(`${server.url}/v1/completions`, { method: 'POST', headers, body })).status).toBe(200);
    }
    // Two others take its place in memory, on both cores.
    for (const name of ['d', 'e']) expect((await load(server, name, 'demo-pirate')).status).toBe(200);
    const request = { model: 'c', prompt: 'x', max_tokens: 4 };
    const [broken, ...others] = await Promise.all([
      post(`${server.url}/v1/completions`, request),
      ...['d', 'demo', 'e'].map((model) => chat(server, model, QUESTIONS[0]!)),
    ]);
    expect(broken.status).toBe(500);
    expect(others.map(isPirate)).toEqual([true, false, true]);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });
});

test('an adapter that can not be loaded ends the start with its reason', async () => {
  const server = await startBao(
    ['demo', '--enable-lora', '--max-lora-rank', '1', '--lora-modules', 'pirate=demo-pirate'],
    {
      waitUntilReady: false,
    },
  );
  expect(await server.exited).toBe(1);
  expect(server.stderr()).toContain('Loading lora pirate failed: LoRA rank 8 is greater than max_lora_rank 1.');
});
