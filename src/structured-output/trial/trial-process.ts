import type { GrammarSpec } from '../../sampling/structured-outputs-params.ts';
import { createTokenizer } from '../../tokenizer/create-tokenizer.ts';
import { GuidanceBackend, type GuidanceVocabulary } from '../guidance-backend.ts';

/** The process of a GrammarTrials: a line with the vocabulary, then one for each grammar, until the input ends; a line answers each of them. */

/** A line of the answers. */
export type TrialAnswer = TrialResult | TrialProgress;

export interface TrialResult {
  /** Why the grammar can't be compiled; null: it can. */
  message: string | null;
}

/** Of a compile that goes on. */
export interface TrialProgress {
  /** Processor time that it has taken, milliseconds. */
  spentMs: number;
}

/** What a compile may take beyond what the process had. */
const MAX_BYTES = 256 << 20;
const POLL_MS = 1;
/** A compile is told of each time it has taken this much more. */
const PROGRESS_MS = 20;

const server = process.ppid;

export async function runGrammarTrials(): Promise<void> {
  let backend: GuidanceBackend | null = null;
  for await (const line of console) {
    if (backend === null) {
      backend = await openBackend(JSON.parse(line) as GuidanceVocabulary);
      answer({ message: null });
    } else {
      answer({ message: await compile(backend, JSON.parse(line) as GrammarSpec) });
    }
  }
}

async function openBackend(vocabulary: GuidanceVocabulary): Promise<GuidanceBackend> {
  const backend = new GuidanceBackend({ model: vocabulary });
  await backend.registerVocabulary(await createTokenizer(vocabulary.tokenizerFolder!, { mode: 'js' }));
  return backend;
}

async function compile(backend: GuidanceBackend, spec: GrammarSpec): Promise<string | null> {
  const most = process.memoryUsage.rss() + MAX_BYTES;
  const before = process.cpuUsage();
  let toldMs = 0;
  const grammar = backend.compile(spec);
  try {
    while (grammar.status === 'compiling') {
      const { user, system } = process.cpuUsage(before);
      const spentMs = (user + system) / 1000;
      if (spentMs >= toldMs + PROGRESS_MS) {
        toldMs = spentMs;
        answer({ spentMs });
      }
      if (process.memoryUsage.rss() > most) {
        answer({ message: `it needs more than ${MAX_BYTES >> 20} MiB to be compiled` });
        // The thread that compiles can't be stopped otherwise.
        process.exit();
      }
      // The server is gone without having ended this.
      if (process.ppid !== server) process.exit();
      await Bun.sleep(POLL_MS);
    }
    return grammar.status === 'ready' ? null : grammar.message();
  } finally {
    grammar.free();
  }
}

function answer(line: TrialAnswer): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
