import { ptr } from 'bun:ffi';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { Nccl, type NcclCommunicator } from '../../../src/device/cuda/nccl.ts';
import { randomFloats } from '../harness.ts';

declare const self: Worker;

/** What one rank of a test is told. */
export interface RankTask {
  libraries: { cudart: readonly string[]; nccl: readonly string[] };
  id: number[];
  rank: number;
  numRanks: number;
  /** Elements of each operation. */
  count: number;
  scenario: 'all' | 'absent peer' | 'other operation';
}

export interface RankResults {
  allReduce: number[];
  allGather: number[];
  reduceScatter: number[];
  /** What came round the ring. */
  received: number[];
  /** An all-reduce in a graph, launched twice. */
  replayed: number[];
}

/** What rank `rank` gives to the operations: [numRanks * count]. */
export function inputOf(rank: number, numRanks: number, count: number): Float32Array {
  return randomFloats(numRanks * count, 100 + rank);
}

/** Runs one rank to its end. Throws what a call throws. */
export function runRank({ libraries, id, rank, numRanks, count, scenario }: RankTask): RankResults {
  const runtime = new CudaRuntime(libraries.cudart);
  runtime.selectDevice(rank);
  const { functions } = runtime;
  const stream = runtime.createStream();
  const nccl = new Nccl(libraries.nccl);
  const comm = nccl.communicator(Uint8Array.from(id), rank, numRanks, stream);
  const bytes = numRanks * count * 4;
  const input = inputOf(rank, numRanks, count);
  const [from, to] = [runtime.malloc(bytes), runtime.malloc(bytes)];
  const reset = () => runtime.check('cudaMemcpyAsync', functions.cudaMemcpyAsync(from, ptr(input), bytes, 1, stream));
  const read = (elements: number, address = to) => {
    const host = new Float32Array(elements);
    runtime.check('cudaMemcpyAsync', functions.cudaMemcpyAsync(ptr(host), address, elements * 4, 2, stream));
    return [...host];
  };
  reset();
  if (scenario === 'absent peer') {
    if (rank === 0) comm.allReduce(from, to, count, 'float32');
    return { ...NOTHING, allReduce: rank === 0 ? read(count) : [] };
  }
  if (scenario === 'other operation') {
    comm.allReduce(from, to, rank === 0 ? count : count - 1, 'float32');
    return { ...NOTHING, allReduce: read(count) };
  }
  comm.allReduce(from, to, count, 'float32');
  const allReduce = read(count);
  comm.allGather(from, to, count, 'float32');
  const allGather = read(numRanks * count);
  comm.reduceScatter(from, to, count, 'float32');
  const reduceScatter = read(count);
  const received = sendRound(nccl, comm, { from, to, rank, numRanks, count }, read);
  const replayed = replay(runtime, stream, comm, from, count, read);
  comm.close();
  return { allReduce, allGather, reduceScatter, received, replayed };
}

const NOTHING: RankResults = { allReduce: [], allGather: [], reduceScatter: [], received: [], replayed: [] };

function sendRound(
  nccl: Nccl,
  comm: NcclCommunicator,
  { from, to, rank, numRanks, count }: { from: number; to: number; rank: number; numRanks: number; count: number },
  read: (elements: number) => number[],
): number[] {
  nccl.group(() => {
    comm.send(from, count, 'float32', (rank + 1) % numRanks);
    comm.receive(to, count, 'float32', (rank + numRanks - 1) % numRanks);
  });
  return read(count);
}

/** In place, so that each launch adds up what the one before gave. */
function replay(
  runtime: CudaRuntime,
  stream: number,
  comm: NcclCommunicator,
  buffer: number,
  count: number,
  read: (elements: number, address: number) => number[],
): number[] {
  const graph = runtime.captureGraph(
    stream,
    () => comm.allReduce(buffer, buffer, count, 'float32'),
    (captured) => runtime.instantiateGraph(captured),
  );
  for (let i = 0; i < 2; i++) runtime.check('cudaGraphLaunch', runtime.functions.cudaGraphLaunch(graph, stream));
  const values = read(count, buffer);
  runtime.functions.cudaGraphExecDestroy(graph);
  return values;
}

/** A Worker gets its task as a message, a process on its command line; both answer with the results, or with what was thrown. */
function answer(task: RankTask): { results?: RankResults; error?: string } {
  try {
    return { results: runRank(task) };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

if (!Bun.isMainThread) {
  self.onmessage = ({ data }: MessageEvent<RankTask>) => self.postMessage(answer(data));
  self.postMessage('ready');
} else if (import.meta.main) {
  process.stdout.write(JSON.stringify(answer(JSON.parse(process.argv[2]!))));
}
