import { describe, expect, test } from 'bun:test';
import * as fc from 'fast-check';
import { ValidationError } from '../../src/errors/validation-error.ts';
import { CHAT, COMPLETIONS, MESSAGES, messages, RESPONSES, testServer } from './http.ts';

const LORA = { enableLora: true, loraModules: ['pirate=demo-pirate'] };
const LOAD = '/v1/load_lora_adapter';
const UNLOAD = '/v1/unload_lora_adapter';

const withLoras = (flags: object = {}) => testServer({ flags: { ...LORA, allowRuntimeLoraUpdating: true, ...flags } });

describe('an adapter is a model', () => {
  test('in the list, with root and parent', async () => {
    const server = await withLoras();
    const { data } = (await (await server.get('/v1/models')).json()) as { data: Record<string, unknown>[] };
    expect(data.map(({ id, root, parent }) => [id, root, parent])).toEqual([
      ['demo', expect.stringContaining('demo'), null],
      ['pirate', 'demo-pirate', 'demo'],
    ]);
    expect(await (await server.get('/v1/models/pirate')).json()).toMatchObject({ id: 'pirate', parent: 'demo' });
    expect((await server.get('/v1/models/parrot')).status).toBe(404);
  });

  test('that every endpoint takes, and names in its answer', async () => {
    const server = await withLoras();
    const bodies: [path: string, body: object][] = [
      [CHAT, { messages }],
      [COMPLETIONS, { prompt: 'a' }],
      [RESPONSES, { input: 'a' }],
      [MESSAGES, { messages, max_tokens: 4 }],
    ];
    for (const [path, body] of bodies) {
      const { status, body: answer } = await server.postJson(path, { model: 'pirate', max_tokens: 4, ...body });
      expect([path, status, answer.model]).toEqual([path, 200, 'pirate']);
      expect(server.engine.requests.at(-1)!.lora).toEqual({
        id: 1,
        name: 'pirate',
        path: expect.stringContaining('demo-pirate'),
      });
    }
    await server.postJson(CHAT, { model: 'demo', messages, max_tokens: 4 });
    expect(server.engine.requests.at(-1)!.lora).toBeNull();
    for (const [path, body] of [
      ['/tokenize', { prompt: 'a' }],
      ['/detokenize', { tokens: [1] }],
      [`${MESSAGES}/count_tokens`, { messages }],
    ] as const) {
      expect((await server.postJson(path, { model: 'pirate', ...body })).status).toBe(200);
    }
  });
});

describe('loading and unloading', () => {
  test('a loaded adapter is served until it is unloaded', async () => {
    const server = await withLoras();
    const answer = await server.post(LOAD, { lora_name: 'corsair', lora_path: 'demo-pirate' });
    expect([answer.status, await answer.text()]).toEqual([200, "Success: LoRA adapter 'corsair' added successfully."]);
    expect([...server.engine.loras.values()].map(({ name }) => name)).toEqual(['corsair']);
    expect((await server.postJson(COMPLETIONS, { model: 'corsair', prompt: 'a', max_tokens: 2 })).status).toBe(200);
    expect(server.engine.requests.at(-1)!.lora!.id).toBe(2);
    const gone = await server.post(UNLOAD, { lora_name: 'corsair' });
    expect([gone.status, await gone.text()]).toEqual([200, "Success: LoRA adapter 'corsair' removed successfully."]);
    expect(server.engine.loras.size).toBe(0);
    expect((await server.postJson(COMPLETIONS, { model: 'corsair', prompt: 'a' })).status).toBe(404);
  });

  test('in place only when asked for', async () => {
    const server = await withLoras();
    const body = { lora_name: 'pirate', lora_path: 'demo-pirate' };
    const refused = await server.postJson(LOAD, body);
    expect(refused).toEqual({
      status: 400,
      body: {
        error: {
          message:
            "The lora adapter 'pirate' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.",
          type: 'InvalidUserInput',
          param: 'lora_name',
          code: 400,
        },
      },
    });
    expect((await server.post(LOAD, { ...body, load_inplace: true })).status).toBe(200);
  });

  test('mistakes are named', async () => {
    const server = await withLoras();
    const cases: [path: string, body: unknown, status: number, type: string, text: string][] = [
      [LOAD, { lora_name: 'x' }, 400, 'Bad Request', 'lora_path'],
      [LOAD, { lora_name: 'x', lora_path: 7 }, 400, 'Bad Request', 'lora_path'],
      [LOAD, { lora_name: '', lora_path: 'x' }, 400, 'InvalidUserInput', 'must be provided'],
      [LOAD, { lora_name: 'x', lora_path: '/nowhere' }, 404, 'NotFoundError', 'No adapter found for /nowhere'],
      [UNLOAD, { lora_name: 'x' }, 404, 'NotFoundError', "The lora adapter 'x' cannot be found."],
      [UNLOAD, {}, 400, 'Bad Request', 'lora_name'],
    ];
    for (const [path, body, status, type, text] of cases) {
      const answer = await server.postJson(path, body);
      expect([answer.status, answer.body.error.type]).toEqual([status, type]);
      expect(answer.body.error.message).toContain(text);
    }
    server.engine.refusal = new ValidationError('LoRA rank 64 is greater than max_lora_rank 16.');
    const refused = await server.postJson(LOAD, { lora_name: 'x', lora_path: 'demo-pirate' });
    expect([refused.status, refused.body.error.message]).toEqual([
      400,
      'LoRA rank 64 is greater than max_lora_rank 16.',
    ]);
  });

  test('is there only with --allow-runtime-lora-updating, and needs --enable-lora', async () => {
    const closed = await testServer({ flags: LORA });
    expect((await closed.post(LOAD, { lora_name: 'x', lora_path: 'demo-pirate' })).status).toBe(404);
    const off = await testServer({ flags: { allowRuntimeLoraUpdating: true } });
    const answer = await off.postJson(LOAD, { lora_name: 'x', lora_path: 'demo-pirate' });
    expect([answer.status, answer.body.error.message]).toEqual([400, 'LoRA is not enabled (--enable-lora).']);
  });

  test('whatever is sent is answered with less than 500', async () => {
    const server = await withLoras();
    const names = fc.constantFrom('lora_name', 'lora_path', 'load_inplace', 'lora_int_id');
    const values = fc.oneof(
      fc.constantFrom(
        'demo-pirate',
        'models/demo',
        '/',
        '.',
        '..',
        '~',
        '~root',
        '/dev/null',
        '/proc/self/fd/0',
        'a\0b',
        true,
        'pirate',
      ),
      fc.string(),
      fc.jsonValue({ maxDepth: 2 }),
    );
    const bodies = fc.oneof(fc.dictionary(names, values, { minKeys: 0, maxKeys: 4 }), fc.jsonValue());
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(LOAD, UNLOAD), bodies, async (path, body) => {
        const response = await server.post(path, JSON.stringify(body));
        await response.text();
        expect(response.status).toBeLessThan(500);
      }),
      { numRuns: 2000 },
    );
  });
});
