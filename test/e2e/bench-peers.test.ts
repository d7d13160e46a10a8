import { afterAll, describe, expect, test } from 'bun:test';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { childrenOf, processState } from '../bench/processes.ts';

const ROOT = resolve(import.meta.dir, '../..');
/** A batch of so many tokens is one that the fake server never answers. */
const ENDLESS = 5;

/** A llama-server that answers all but endless batches; of such a one it says so in a file beside it. */
const LLAMA_SERVER = `#!${process.execPath}
if (process.argv[2] === '--version') process.exit(console.log('version: 7'));
const value = (flag) => process.argv[process.argv.indexOf(flag) + 1];
Bun.serve({
  hostname: value('--host'),
  port: Number(value('--port')),
  idleTimeout: 0,
  async fetch(request) {
    if (request.url.endsWith('/health')) return new Response();
    const { max_tokens } = await request.json();
    if (max_tokens === ${ENDLESS}) {
      await Bun.write(require('node:path').join(__dirname, 'hangs'), '');
      await new Promise(() => {});
    }
    const events = [...Array(max_tokens).fill({ choices: [{ text: 'x' }] }), { usage: { completion_tokens: max_tokens } }];
    return new Response(events.map((event) => 'data: ' + JSON.stringify(event) + '\\n\\n').join(''));
  },
});
`;

describe.skipIf(process.platform !== 'linux')('bun bench peers', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-bench-peers-'));
  const program = join(folder, 'llama-server');
  const output = join(folder, 'results/peers.json');
  writeFileSync(program, LLAMA_SERVER, { mode: 0o755 });
  afterAll(() => rmSync(folder, { recursive: true }));

  test('stops those that wait, and when it is cut off keeps what it has measured and leaves no process', async () => {
    const command = [
      ...[process.execPath, 'bench/main.ts', 'peers', '--model', 'demo', '--load-format', 'auto', '--num-rounds', '1'],
      ...['--prefill-lens', '4', '--batch-sizes', '', '--streams', '1', '--stream-output-len', String(ENDLESS)],
      ...['--llama-server', `fake=${program}`, '--gguf', 'none.gguf', '--node-llama-cpp', folder],
      ...['--vllm-python', process.execPath, '--output-json', output],
    ];
    const bench = Bun.spawn(command, { cwd: ROOT, stdout: 'pipe', stderr: 'pipe' });
    const [stdout, stderr] = [new Response(bench.stdout).text(), new Response(bench.stderr).text()];
    while (!existsSync(join(folder, 'hangs'))) {
      if (bench.exitCode !== null) throw new Error(await stderr);
      await Bun.sleep(10);
    }

    const engines = childrenOf(bench.pid).filter((pid) => processState(pid)?.command[0] !== 'sh');
    expect(engines.length).toBe(2);
    for (const { stopped, command } of engines.map((pid) => processState(pid)!)) {
      expect(stopped).toBe(!command.includes(program));
    }
    const cutOff = JSON.parse(readFileSync(output, 'utf8'));

    bench.kill('SIGTERM');
    await bench.exited;
    expect(bench.signalCode as string).toBe('SIGTERM');
    expect(engines.map(processState)).toEqual([null, null]);
    expect(JSON.parse(readFileSync(output, 'utf8'))).toEqual(cutOff);
    expect(readdirSync(join(folder, 'results'))).toEqual(['peers.json']);
    expect(cutOff).toMatchObject({ benchmark: 'peers', model: 'demo', complete: false });
    expect(Object.keys(cutOff.versions)).toEqual(['bao', 'fake']);
    const row = { aspect: 'prefill', input_len: 4, tokens_per_s: expect.any(Number) };
    expect(cutOff.rows).toMatchObject([
      { ...row, peer: 'bao' },
      { ...row, peer: 'fake' },
    ]);
    expect(await stdout).toMatch(/^prefill 4 /m);
  });
});
