import type { GrammarSpec } from '../../sampling/structured-outputs-params.ts';
import { createTokenizer } from '../../tokenizer/create-tokenizer.ts';
import { GuidanceBackend, type GuidanceVocabulary } from '../guidance-backend.ts';

/** The process of a GrammarTrials: a line with the vocabulary, then one for each grammar, until the input ends; a line answers each of them. */

/** A line of the answers. */
export interface TrialResult {
  /** Why the grammar can't be compiled; null: it can. */
  message: string | null;
}

/** What a compile may take beyond what the process had. */
const MAX_BYTES = 256 << 20;
const POLL_MS = 1;

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
  const grammar = backend.compile(spec);
  try {
    while (grammar.status === 'compiling') {
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

function answer(result: TrialResult): void {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
