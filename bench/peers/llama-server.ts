import { UsageError } from '../../src/config/config-error.ts';
import { freePort, ServerProcess } from '../server-process.ts';
import { ggufOf } from './gguf.ts';
import { HttpSession, MODEL_NAME } from './http-session.ts';
import type { Peer, PeerLocations } from './peer.ts';

const POLL_MS = 20;

/** The servers of llama.cpp and its forks, each on a GGUF file of the same weights; options that one is given are told with its version. */
export function llamaServers({ llamaServer, gguf }: PeerLocations): Peer[] {
  return llamaServer.map((entry) => {
    const [, name, program, options = ''] = /^([^=]+)=(.+?)((?: +-.*)?)$/.exec(entry) ?? [];
    if (name === undefined || program === undefined) {
      throw new UsageError(
        `--llama-server takes NAME=FILE, such as llama.cpp=build/bin/llama-server, with options behind it where it needs some, not "${entry}".`,
      );
    }
    return peer(name, program, options.split(' ').filter(Boolean), gguf);
  });
}

function peer(name: string, program: string, options: readonly string[], given: string | null): Peer {
  return {
    name,
    async version() {
      if (Bun.which(program) === null) throw new UsageError(`--llama-server ${name}=${program} is no program.`);
      const { stdout, stderr } = Bun.spawnSync([program, '--version']);
      const [, version] = /^version: (.+)$/m.exec(`${stdout}${stderr}`) ?? [];
      return [version ?? 'of unknown version', ...options].join(' ');
    },
    async start(workload, signal) {
      const { threads, maxModelLen, maxBatchSize } = workload;
      const file = await ggufOf(workload, given);
      const port = freePort();
      const server = new ServerProcess([
        ...[program, '--model', file.path, '--alias', MODEL_NAME, '--host', '127.0.0.1', '--port', String(port)],
        ...['--threads', String(threads), '--threads-batch', String(threads)],
        // The context is shared out evenly over the sequences.
        ...['--parallel', String(maxBatchSize), '--ctx-size', String(maxBatchSize * maxModelLen)],
        ...options,
      ]);
      return HttpSession.open(
        {
          server,
          ready: healthy(server, `http://127.0.0.1:${port}`),
          // A prompt is computed whole, whatever it has in common with the one before.
          extraBody: { cache_prompt: false },
          release: () => file.remove(),
        },
        signal,
      );
    },
  };
}

/** Its URL when the server says that its model is loaded; rejects with the end of its log. */
async function healthy(server: ServerProcess, url: string): Promise<string> {
  while (!(await fetch(`${url}/health`).catch(() => null))?.ok) {
    const failure = server.failure();
    if (failure !== null) throw failure;
    await Bun.sleep(POLL_MS);
  }
  return url;
}
