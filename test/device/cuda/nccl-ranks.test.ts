import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { ensureCudaEmulation } from '../../../scripts/build-cuda.ts';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { Nccl } from '../../../src/device/cuda/nccl.ts';
import { inputOf, type RankResults, type RankTask } from './nccl-rank.ts';

const { cudart, nccl: paths } = await ensureCudaEmulation({ quiet: true });
const libraries = { cudart, nccl: paths };
const SCRIPT = join(import.meta.dir, 'nccl-rank.ts');

/** Ranks wait for one another for so long: far longer than the starts of two processes are apart. */
const IMPATIENT = { BAO_CUDA_EMULATION_NCCL_TIMEOUT_MS: '4000' };

type Answer = { results?: RankResults; error?: string };

function newId(): number[] {
  new CudaRuntime(cudart);
  return [...new Nccl(paths).uniqueId()];
}

async function inProcess(task: RankTask, env: Record<string, string> = {}): Promise<Answer> {
  const child = Bun.spawn([process.execPath, SCRIPT, JSON.stringify(task)], {
    env: { ...process.env, BAO_CUDA_EMULATION_DEVICES: '8', ...env },
    stdout: 'pipe',
    stderr: 'ignore',
  });
  return JSON.parse(await new Response(child.stdout).text());
}

/** One after the other until each has loaded, as engine cores do. */
async function openWorkers(count: number): Promise<Worker[]> {
  const workers: Worker[] = [];
  for (let rank = 0; rank < count; rank++) {
    const worker = new Worker(SCRIPT);
    await new Promise((resolve) => worker.addEventListener('message', resolve, { once: true }));
    workers.push(worker);
  }
  return workers;
}

function ask(worker: Worker, task: RankTask): Promise<Answer> {
  return new Promise((resolve) => {
    worker.addEventListener('message', ({ data }) => resolve(data), { once: true });
    worker.postMessage(task);
  });
}

function tasks(numRanks: number, count: number, scenario: RankTask['scenario'] = 'all'): RankTask[] {
  const id = newId();
  return Array.from({ length: numRanks }, (_, rank) => ({ libraries, id, rank, numRanks, count, scenario }));
}

/** The results by the operations' definitions. */
function expected(rank: number, numRanks: number, count: number): RankResults {
  const inputs = Array.from({ length: numRanks }, (_, each) => inputOf(each, numRanks, count));
  const sum = (from: number) =>
    Array.from({ length: count }, (_, i) =>
      inputs.slice(1).reduce((total, input) => Math.fround(total + input[from + i]!), inputs[0]![from + i]!),
    );
  const again = (values: number[]) =>
    values.map((value) => {
      let total = value;
      for (let i = 1; i < numRanks; i++) total = Math.fround(total + value);
      return total;
    });
  const before = inputs[(rank + numRanks - 1) % numRanks]!;
  return {
    allReduce: sum(0),
    allGather: inputs.flatMap((input) => [...input.slice(0, count)]),
    reduceScatter: sum(rank * count),
    received: [...before.slice(0, count)],
    replayed: again(sum(0)),
  };
}

describe('emulated NCCL', () => {
  test.each([
    [2, 5],
    [2, 100_003],
    [3, 40_000],
  ])('%d processes with %d elements each', async (numRanks, count) => {
    const answers = await Promise.all(tasks(numRanks, count).map((task) => inProcess(task)));
    answers.forEach((answer, rank) => void expect(answer).toEqual({ results: expected(rank, numRanks, count) }));
  });

  test('two threads of a process, on a device each', async () => {
    const workers = await openWorkers(2);
    const given = tasks(2, 70_001);
    const answers = await Promise.all(workers.map((worker, rank) => ask(worker, given[rank]!)));
    answers.forEach((answer, rank) => void expect(answer).toEqual({ results: expected(rank, 2, 70_001) }));
    for (const worker of workers) worker.terminate();
  });

  test.concurrent('a rank whose peer does not come to an operation fails, by the name of the call that waits', async () => {
    const answers = await Promise.all(tasks(2, 10, 'absent peer').map((task) => inProcess(task, IMPATIENT)));
    expect(answers[0]!.error).toContain('cudaErrorLaunchFailure');
    expect(answers[1]!.results).toBeDefined();
  });

  test.concurrent('ranks that are not in the same operation fail', async () => {
    const answers = await Promise.all(tasks(2, 10, 'other operation').map((task) => inProcess(task)));
    for (const { error } of answers) expect(error).toContain('cudaErrorLaunchFailure');
  });

  test.concurrent('a communicator is refused to a rank that is there already, or out of range', async () => {
    const [first] = tasks(2, 4);
    const answers = await Promise.all([first!, first!].map((task) => inProcess(task, IMPATIENT)));
    const errors = answers.map(({ error }) => error).sort();
    expect(errors[0]).toContain('ncclCommInitRank: invalid usage');
    expect(errors[1]).toContain('ncclCommInitRank: unhandled system error');
    const outside = await inProcess({ ...first!, rank: 2 });
    expect(outside.error).toContain('ncclCommInitRank: invalid argument');
  });
});
