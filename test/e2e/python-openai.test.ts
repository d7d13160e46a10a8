import { expect, test } from 'bun:test';
import { join } from 'node:path';
import { startBao } from './bao-process.ts';
import { pythonWith } from './python/environment.ts';

const VERSION = '3.57.0';
const environment = await pythonWith(`openai==${VERSION}`);
if ('missing' in environment) console.warn(`The Python SDK is not tested here: ${environment.missing}`);

test.if('python' in environment)("OpenAI's Python package gets what it expects of a real server", async () => {
  const { python } = environment as { python: string };
  // Left to itself, the demo model fills JSON with blanks.
  const grammar = ['--structured-outputs-config.disable_any_whitespace', 'true'];
  const server = await startBao(['demo', '--api-key', 'sk-test', ...grammar]);
  try {
    const script = join(import.meta.dir, 'python/openai_client.py');
    const child = Bun.spawn([python, script, server.url, 'sk-test'], { stdout: 'pipe', stderr: 'pipe' });
    const [stdout, stderr, code] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const got = JSON.parse(stdout);
    expect(got).toMatchObject({
      version: VERSION,
      models: ['demo'],
      parsed: true,
      tool_call: { name: 'get_weather', arguments: ['city'] },
      responses: { first: 'response.created', last: 'response.completed' },
      concurrent: 16,
    });
    expect(got.chat.text).toContain('Paris');
    expect(got.chat).toMatchObject({ finish_reason: 'stop', top: Array(got.chat.tokens).fill(2) });
    expect(got.chat_stream).toEqual({ text: got.chat.text, tokens: got.chat.tokens });
    expect(got.responses.text).toContain('Paris');
    expect(got.responses.again).toBe(got.responses.text);
    expect(got.completion).toContain('Paris');
    expect(got.refusals).toEqual([
      ['BadRequestError', 400, 'temperature'],
      ['NotFoundError', 404, 'model'],
      ['AuthenticationError', 401, null],
    ]);
  } finally {
    await server.stop();
  }
});
