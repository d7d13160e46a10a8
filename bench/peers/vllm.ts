import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { UsageError } from '../../src/config/config-error.ts';
import { freePort, ServerProcess } from '../server-process.ts';
import { HttpSession, hasTokenizer, MODEL_NAME, streamsOf } from './http-session.ts';
import type { Peer, PeerLocations } from './peer.ts';

/** GiB; its default is half of the memory. */
const KV_CACHE_GIB = 2;

/** vLLM's own OpenAI server. */
export function vllm({ vllmPython }: PeerLocations): Peer {
  const python = vllmPython ?? pythonOnPath();
  return {
    name: 'vllm',
    async version({ quantization }) {
      // Its CPU build quantizes no checkpoint as it loads it.
      if (python === null || quantization !== 'none') return null;
      if (Bun.which(python) === null) throw new UsageError(`--vllm-python ${python} is no program.`);
      const script = 'import importlib.metadata as m; print(m.version("vllm"))';
      const { stdout, exitCode } = Bun.spawnSync([python, '-c', script], { stderr: 'ignore' });
      return exitCode === 0 ? stdout.toString().trim() : null;
    },
    async start({ model, dummyWeights, threads, maxModelLen, maxBatchSize }, signal) {
      const port = freePort();
      const server = new ServerProcess(
        [
          ...[python!, '-m', 'vllm.entrypoints.cli.main', 'serve', model],
          ...['--host', '127.0.0.1', '--port', String(port)],
          ...(dummyWeights ? ['--load-format', 'dummy'] : []),
          ...(hasTokenizer(model) ? [] : ['--skip-tokenizer-init']),
          ...['--served-model-name', MODEL_NAME, '--dtype', 'bfloat16'],
          ...['--max-num-seqs', String(maxBatchSize), '--max-model-len', String(maxModelLen)],
          ...['--no-enable-prefix-caching', '--disable-uvicorn-access-log'],
        ],
        environment(python!, threads),
      );
      const ready = server.logged(/Application startup complete/).then(() => `http://127.0.0.1:${port}`);
      return HttpSession.open({ server, ready, extraBody: streamsOf(model) }, signal);
    },
  };
}

/** The environment whose `vllm` command is on the PATH. */
function pythonOnPath(): string | null {
  const command = Bun.which('vllm');
  const python = command === null ? null : join(dirname(command), 'python');
  return python !== null && existsSync(python) ? python : null;
}

/**
 * What vLLM's guide for CPUs asks for: cores to bind to (by default it leaves one to the server), and Intel's OpenMP and tcmalloc loaded before everything
 * else where they are installed. What the caller has set himself stays.
 */
function environment(python: string, threads: number): Record<string, string> {
  const preloaded = [
    '/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4',
    join(dirname(dirname(python)), 'lib/libiomp5.so'),
  ].filter((path) => existsSync(path));
  const wanted: Record<string, string> = {
    OMP_NUM_THREADS: String(threads),
    VLLM_CPU_OMP_THREADS_BIND: allowedCores().slice(0, threads).join(','),
    VLLM_CPU_KVCACHE_SPACE: String(KV_CACHE_GIB),
    VLLM_NO_USAGE_STATS: '1',
    HF_HUB_OFFLINE: '1',
    ...(preloaded.length > 0 ? { LD_PRELOAD: preloaded.join(':') } : {}),
  };
  return Object.fromEntries(Object.entries(wanted).filter(([name]) => process.env[name] === undefined));
}

/** Cores that this process may use. */
function allowedCores(): number[] {
  const [, list] = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))!;
  return list!.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number);
    return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i);
  });
}
