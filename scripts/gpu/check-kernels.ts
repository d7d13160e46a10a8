/**
 * `bun scripts/gpu/check-kernels.ts DEVICE FILE [SECONDS]`: runs the tests of the kernels on the device, all in one process. Where they fail, those of
 * each op once more in a process of its own: a kernel that faults leaves a device that fails whatever comes after. Writes what became of each op; ends
 * with 1 where one failed.
 */
import { opCases } from '../../test/device/cuda/op-cases.ts';

const NAMES = ['cuda-device', 'step-graphs', 'matrix-products', 'nccl-device', 'ops', 'quantized-products', 'sample'];
const fileOf = (name: string) => `./test/device/cuda/${name}.test.ts`;
const OP_LIMIT_S = 40;
const TAIL_LINES = 15;

interface Outcome {
  passed: number;
  failed: number;
  /** null: it was stopped, or ended by a signal. */
  exit_code: number | null;
}

const [device, path, seconds] = process.argv.slice(2);
if (device === undefined || path === undefined) throw new Error('usage: check-kernels.ts DEVICE FILE [SECONDS]');
const end = performance.now() + Number(seconds ?? 240) * 1000;

/** Prints the end of what a failed run says. */
async function runTests(args: readonly string[], limitS: number): Promise<Outcome> {
  const child = Bun.spawn([process.execPath, 'test', ...args, '--timeout=60000'], {
    env: { ...process.env, BAO_TEST_CUDA_DEVICE: device },
    stdout: 'ignore',
    stderr: 'pipe',
    timeout: Math.ceil(Math.max(1, Math.min(limitS * 1000, end - performance.now()))),
    killSignal: 'SIGKILL',
  });
  const [text, code] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  const count = (what: string) => Number(new RegExp(`^ *(\\d+) ${what}$`, 'm').exec(text)?.[1] ?? 0);
  const failures = text.split('\n').filter((line) => /^\(fail\)|^error|CUDA error|cudaError/.test(line));
  if (code !== 0) console.log([...failures.slice(0, TAIL_LINES), ...text.trim().split('\n').slice(-5)].join('\n'));
  return { passed: count('pass'), failed: count('fail'), exit_code: child.signalCode === null ? code : null };
}

/** The other tests' files, then the ops that have cases. */
function parts(): [name: string, args: readonly string[]][] {
  const ops = new Set(opCases('bfloat16').map(({ name }) => /^\w+/.exec(name)![0]));
  return [
    ...NAMES.filter((name) => name !== 'ops').map((name) => [name, [fileOf(name)]] as [string, string[]]),
    ...[...ops].map((op) => [op, [fileOf('ops'), '-t', `float(32|16) ${op}[ ,]`]] as [string, string[]]),
  ];
}

const all = await runTests(NAMES.map(fileOf), Number(seconds ?? 240));
const results: Record<string, Outcome> = { all };
if (all.exit_code !== 0) {
  for (const [name, args] of parts()) {
    if (performance.now() >= end) break;
    console.log(`--- ${name}`);
    results[name] = await runTests(args, OP_LIMIT_S);
    await Bun.write(path, JSON.stringify(results));
  }
}
for (const [name, { passed, failed, exit_code }] of Object.entries(results)) {
  console.log(`${name}: ${passed} passed, ${failed} failed${exit_code === 0 ? '' : `, exit code ${exit_code}`}`);
}
await Bun.write(path, JSON.stringify(results));
process.exit(all.exit_code === 0 ? 0 : 1);
