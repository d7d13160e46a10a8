import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { ConfigError, UsageError } from '../config/config-error.ts';
import type { FlagTable } from '../config/flags/flag.ts';
import { type BatchAnswer, BatchRunner } from './batch-runner.ts';
import { commandLineOrHelp, engineArgsOf } from './command-line.ts';

const FLAGS = {
  'input-file': {
    type: 'string',
    default: null,
    aliases: ['-i'],
    metavar: 'FILE',
    help: 'Requests, one JSON object a line: {"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}; - is standard input.',
  },
  'output-file': {
    type: 'string',
    default: null,
    aliases: ['-o'],
    metavar: 'FILE',
    help: 'Answers, one JSON object a line, in the order of the requests; - is standard output.',
  },
} as const satisfies FlagTable;

const COMMAND = {
  usage: 'bao run-batch -i IN.jsonl -o OUT.jsonl [--model MODEL] [flags]',
  doc: 'Answer a file of requests, in the format of OpenAI’s batches. A request that is refused has its error in its line.',
  flags: FLAGS,
  takesEngineFlags: true,
} as const;

/** `bao run-batch`. Throws UsageError, ConfigError for files that can't be used, and what starting the engine throws. */
export async function runBatch(argv: readonly string[]): Promise<void> {
  const line = await commandLineOrHelp(COMMAND, argv);
  if (line === null) return;
  const { inputFile, outputFile } = line.values;
  if (line.positionals.length > 0) throw new UsageError(`Unexpected argument "${line.positionals[0]}".`);
  if (inputFile === null || outputFile === null) throw new UsageError('--input-file and --output-file are needed.');
  checkOutput(inputFile, outputFile);
  const lines = await readLines(inputFile);

  const [{ OfflineEngine }, { createApp }, { showGenerationProgress }] = await Promise.all([
    import('../entrypoints/offline-engine.ts'),
    import('../server/app.ts'),
    import('../entrypoints/generation-progress.ts'),
  ]);
  const own = { apiKey: [], rootPath: null, disableUvicornAccessLog: true };
  const engine = await OfflineEngine.start(engineArgsOf({ ...line.engine, ...own }, undefined));
  const app = createApp(engine.client, { adapters: engine.adapters.table });
  const output = openOutput(outputFile);
  const progress = await showGenerationProgress(lines.length, true);
  try {
    const runner = new BatchRunner(async (request) => app.fetch(request), engine.config.scheduler.maxNumSeqs);
    const { numFailed } = await runner.run(lines, (answer) => {
      output.write(answer);
      progress.advance();
    });
    progress.stop();
    process.stderr.write(`${lines.length} requests, ${numFailed} failed: ${outputFile}\n`);
  } finally {
    progress.stop();
    await output.close();
    await engine.close();
  }
}

/** Before the model is loaded. */
function checkOutput(inputFile: string, outputFile: string): void {
  if (outputFile === '-') return;
  if (resolve(inputFile) === resolve(outputFile)) throw new UsageError('--output-file would overwrite --input-file.');
  const folder = dirname(resolve(outputFile));
  if (!existsSync(folder)) throw new ConfigError(`--output-file: the folder ${folder} does not exist.`);
}

async function readLines(path: string): Promise<string[]> {
  const text = await (path === '-' ? Bun.stdin : Bun.file(path)).text().catch((error: Error) => {
    throw new ConfigError(`--input-file: ${path} can't be read: ${error.message}`);
  });
  return text.split('\n').filter((line) => line.trim() !== '');
}

/** A line is written as soon as it is known, so that what is done outlives the process. */
function openOutput(path: string): { write(answer: BatchAnswer): void; close(): Promise<void> } {
  const sink = (path === '-' ? Bun.stdout : Bun.file(path)).writer();
  return {
    write: (answer) => {
      sink.write(`${JSON.stringify(answer)}\n`);
      sink.flush();
    },
    close: async () => {
      await sink.end();
    },
  };
}
