import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ServerProcess } from '../server-process.ts';
import { HttpSession } from './http-session.ts';
import type { Peer } from './peer.ts';

const MODEL_NAME = 'model';

/** A port that is free now: vLLM can't be told to choose one and say which. */
function freePort(): number {
  const probe = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } });
  const { port } = probe;
  probe.stop(true);
  return port;
}

/** vLLM's own OpenAI server, found on the PATH. */
export const vllm: Peer = {
  name: 'vllm',
  async version() {
    const path = Bun.which('vllm');
    if (path === null) return null;
    const { stdout, exitCode } = Bun.spawnSync([path, '--version'], { stderr: 'ignore' });
    return exitCode === 0 ? (stdout.toString().trim().split('\n').at(-1) ?? 'unknown') : null;
  },
  async start({ model, dummyWeights, threads, maxModelLen, maxBatchSize }) {
    const port = freePort();
    const server = new ServerProcess(
      [
        ...['vllm', 'serve', model, '--host', '127.0.0.1', '--port', String(port)],
        ...(dummyWeights ? ['--load-format', 'dummy'] : []),
        ...(existsSync(join(model, 'tokenizer.json')) ? [] : ['--skip-tokenizer-init']),
        ...['--served-model-name', MODEL_NAME, '--dtype', 'bfloat16'],
        ...['--max-num-seqs', String(maxBatchSize), '--max-model-len', String(maxModelLen)],
        '--no-enable-prefix-caching',
      ],
      { OMP_NUM_THREADS: String(threads) },
    );
    await server.logged(/Application startup complete/);
    return new HttpSession(server, `http://127.0.0.1:${port}`, MODEL_NAME);
  },
};
