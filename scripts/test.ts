/**
 * `bun run test [PATH…] [options of bun test]`: unit tests in two processes at a time, then each file of test/e2e in a process of its own, one after
 * another, since they start servers. What failed is told once more at the end; the last line is the sum: `N passed, N failed`.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Counts, countResults, groupTestFiles, isReported, listFailures, sumLine } from './test-groups.ts';

const ROOT = resolve(import.meta.dir, '..');
/** Of one test. Far beyond what any takes: only a hang meets it, on whatever machine. */
const TIMEOUT_MS = 180_000;

/** Words up to the first option choose files by a part of their path; the rest is for `bun test`. */
function splitArguments(argv: readonly string[]): { filters: string[]; options: string[] } {
  const args = argv.filter((word) => word !== '--');
  const firstOption = args.findIndex((word) => word.startsWith('-'));
  const end = firstOption < 0 ? args.length : firstOption;
  return { filters: args.slice(0, end), options: args.slice(end) };
}

interface GroupResult {
  counts: Counts;
  failures: readonly string[];
}

/** @param output where the process writes; 'inherit': here */
async function runGroup(
  files: readonly string[],
  options: readonly string[],
  report: string,
  output: number | 'inherit',
): Promise<GroupResult> {
  const child = Bun.spawn(
    [
      process.execPath,
      'test',
      ...files,
      `--timeout=${TIMEOUT_MS}`,
      '--reporter=junit',
      `--reporter-outfile=${report}`,
      ...options,
    ],
    { cwd: ROOT, stdio: ['ignore', output, output] },
  );
  const exitCode = await child.exited;
  const junit = (await Bun.file(report).exists()) ? readFileSync(report, 'utf8') : '';
  const counts = countResults(junit);
  if (exitCode === 0) return { counts, failures: [] };
  const failures = listFailures(junit);
  // A file that can't be loaded, or whose process died, is not in the report, and has not passed. (With options it may have no test that was asked for.)
  const unreported = options.length === 0 ? files.filter((file) => !isReported(junit, file)) : [];
  if (unreported.length > 0 || counts.failed === 0) {
    failures.push(
      `bun test ended with ${child.signalCode ?? `code ${exitCode}`}; did not finish: ${unreported.join(' ')}`,
    );
  }
  return { counts: { ...counts, failed: Math.max(1, counts.failed + unreported.length) }, failures };
}

/** Runs groups at the same time: the first one's output is seen as it comes, that of the others when all have ended. */
async function runAtOnce(
  groups: readonly string[][],
  options: readonly string[],
  folder: string,
): Promise<GroupResult[]> {
  const running = groups.map(async (files, index) => {
    const log = join(folder, `${index}.log`);
    const output = index === 0 ? 'inherit' : openSync(log, 'w');
    const result = await runGroup(files, options, join(folder, `${index}.xml`), output);
    if (output !== 'inherit') closeSync(output);
    return { result, log: index === 0 ? null : log };
  });
  const ended = await Promise.all(running);
  for (const { log } of ended) if (log !== null) process.stdout.write(readFileSync(log));
  return ended.map(({ result }) => result);
}

const { filters, options } = splitArguments(process.argv.slice(2));
const groups = groupTestFiles([...new Bun.Glob('test/**/*.test.ts').scanSync(ROOT)], filters);
if (groups.length === 0) {
  console.error(`No test file matches ${filters.join(', ')}.`);
  process.exit(1);
}

// Here rather than within some test's deadline.
if (groups.flat(2).some((file) => file.includes('cuda') || file.includes('test/bench/'))) {
  const { ensureCudaEmulation } = await import('./build-cuda.ts');
  await ensureCudaEmulation();
}

const total: Counts = { passed: 0, failed: 0, skipped: 0 };
const failed: string[] = [];
for (const atOnce of groups) {
  const folder = mkdtempSync(join(tmpdir(), 'bao-test-'));
  try {
    for (const { counts, failures } of await runAtOnce(atOnce, options, folder)) {
      total.passed += counts.passed;
      total.failed += counts.failed;
      total.skipped += counts.skipped;
      failed.push(...failures);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
for (const failure of failed) console.error(`\n(fail) ${failure}`);
console.log(sumLine(total));
process.exit(total.failed > 0 ? 1 : 0);
