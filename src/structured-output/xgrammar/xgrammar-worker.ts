import { workerData } from 'node:worker_threads';
import { Mailbox, type MailRequest, OP } from './mailbox.ts';
import type { XGrammarMatcher, XGrammarVocabulary } from './xgrammar-engine.ts';
import type { XGrammarSpec } from './xgrammar-spec.ts';

/** A Worker of XGrammarBackend: one request after another from its mailbox. It never comes to an end by itself. */

export interface XGrammarWorkerData {
  memory: SharedArrayBuffer;
  vocabulary: XGrammarVocabulary;
}

const { memory, vocabulary } = workerData as XGrammarWorkerData;
const mailbox = new Mailbox(memory);

/** What XGrammar prints is what it has to say about an error. */
const printed: string[] = [];
const print = (...parts: unknown[]) => {
  printed.push(parts.map(String).join(' '));
};
console.log = console.warn = console.error = print;

type Engine = Awaited<ReturnType<typeof startEngine>>;
type CompiledGrammar = Awaited<ReturnType<Engine['compile']>>;

const grammars = new Map<number, CompiledGrammar>();
const matchers = new Map<number, XGrammarMatcher>();
let nextNumber = 1;
let engine: Engine | null = null;

async function startEngine() {
  const { createTokenizer } = await import('../../tokenizer/create-tokenizer.ts');
  const { XGrammarEngine } = await import('./xgrammar-engine.ts');
  // Without a library to load: Workers that load one at the same moment have crashed Bun.
  const tokenizer = await createTokenizer(vocabulary.tokenizerFolder, { mode: 'js' });
  return XGrammarEngine.create(tokenizer, vocabulary);
}

async function compile(spec: XGrammarSpec): Promise<void> {
  try {
    engine ??= await startEngine();
    const compiled = await engine.compile(spec);
    grammars.set(nextNumber, compiled);
    mailbox.answer(nextNumber++);
  } catch (error) {
    mailbox.answer(0, reason(error));
  }
  printed.length = 0;
}

/** "[FATAL] …/grammar_parser.cc:552: EBNF parser error …" */
function reason(error: unknown): string {
  const fatal = printed.map((line) => /^\[FATAL\] \S+?:\d+: (.*)/s.exec(line)?.[1]).find((text) => text !== undefined);
  return (fatal ?? (error instanceof Error ? error.message : String(error))).trim();
}

const STATUSES = ['open', 'complete', 'refused'] as const;

async function handle({ op, a, b }: MailRequest): Promise<number> {
  switch (op) {
    case OP.newMatcher:
      matchers.set(b, await engine!.createMatcher(grammars.get(a)!));
      return answerWithMask(b);
    case OP.advance:
      await matchers.get(a)!.advance(mailbox.words.slice(0, b));
      return answerWithMask(a);
    case OP.freeMatcher:
      matchers.get(a)?.free();
      matchers.delete(a);
      return 0;
    case OP.freeGrammar:
      grammars.get(a)?.dispose();
      grammars.delete(a);
      return 0;
    default:
      throw new Error(`there is no request ${op}`);
  }
}

function answerWithMask(number: number): number {
  const { status, mask } = matchers.get(number)!;
  mailbox.words.set(mask);
  return STATUSES.indexOf(status);
}

for (;;) {
  const request = mailbox.next();
  if (request.op === OP.compile) await compile(JSON.parse(mailbox.text) as XGrammarSpec);
  else mailbox.answer(await handle(request).catch(() => -1));
}
