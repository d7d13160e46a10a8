import { logger } from '../../logging/logger.ts';
import type { Ops } from '../device.ts';
import { OPS, type OpName } from '../ops.ts';
import type { CudaRuntime } from './cuda-runtime.ts';

const log = logger('cuda');

type OpCall = (...args: number[]) => void;

interface Call {
  readonly op: OpCall;
  readonly args: readonly number[];
}

interface Graph {
  readonly calls: readonly Call[];
  /** The executable graph. */
  readonly handle: number;
  /** Of device memory. */
  readonly bytes: number;
}

/** Mixes numbers (addresses lose what is above 32 bits). Equal calls have equal hashes. */
function hashOf(calls: readonly Call[]): number {
  let hash = calls.length;
  for (const { args } of calls) {
    for (const value of args) {
      hash = Math.imul(hash ^ (value | 0), 0x01000193);
      hash ^= hash >>> 15;
    }
  }
  return hash;
}

function isSame(a: readonly Call[], b: readonly Call[]): boolean {
  return (
    a.length === b.length &&
    a.every(({ op, args }, i) => op === b[i]!.op && args.every((value, j) => value === b[i]!.args[j]))
  );
}

/**
 * Steps as CUDA graphs. A graph is found by the calls that it consists of, not by a name that a caller gives it: what is launched is what was asked
 * for, whatever changed in between. A step that is new runs call by call, and while the device works on it the same calls are captured for the
 * next time. Once a capture has failed no more are tried, and steps that have no graph are enqueued call by call.
 */
export class StepGraphs {
  /** The ops, which within `run` are only noted. */
  readonly ops: Ops;
  /** By hash, the one used longest ago first. */
  private readonly graphs = new Map<number, Graph>();
  private recording: Call[] | null = null;
  private capturing: boolean;

  /** @param maxGraphs how many are kept; 0: none is made */
  constructor(
    private readonly runtime: CudaRuntime,
    private readonly stream: number,
    ops: Ops,
    private readonly maxGraphs: number,
  ) {
    this.capturing = maxGraphs > 0;
    if (maxGraphs === 0) {
      this.ops = ops;
      return;
    }
    const noted = (Object.keys(OPS) as OpName[]).map((name) => {
      const op: OpCall = ops[name];
      const call: OpCall = (...args) => {
        if (this.recording === null) op(...args);
        else this.recording.push({ op, args });
      };
      return [name, call];
    });
    this.ops = Object.fromEntries(noted) as Ops;
  }

  /** Device memory of all graphs. */
  get bytes(): number {
    return this.graphs.values().reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Enqueues the ops that `enqueue` calls. Throws what they throw, and a CudaError where a graph can't be launched. */
  run<Result>(enqueue: () => Result): Result {
    if (this.maxGraphs === 0) return enqueue();
    const calls: Call[] = [];
    this.recording = calls;
    let result: Result;
    try {
      result = enqueue();
    } finally {
      this.recording = null;
    }
    const hash = hashOf(calls);
    const graph = this.graphs.get(hash);
    if (graph !== undefined && isSame(graph.calls, calls)) {
      this.runtime.check('cudaGraphLaunch', this.runtime.functions.cudaGraphLaunch(graph.handle, this.stream));
      this.graphs.delete(hash);
      this.graphs.set(hash, graph);
      return result;
    }
    enqueueAll(calls);
    if (this.capturing) this.capture(hash, calls);
    return result;
  }

  /** Forgets all graphs and makes no more, for memory that is needed more. */
  giveUp(): void {
    if (this.graphs.size === 0) return;
    log.warn(`Memory runs out: ${this.graphs.size} CUDA graphs are given up, and no more are made`);
    this.capturing = false;
    this.runtime.check('cudaStreamSynchronize', this.runtime.functions.cudaStreamSynchronize(this.stream));
    this.clear();
  }

  /** Forgets all graphs. Their launches must be done. */
  clear(): void {
    for (const { handle } of this.graphs.values()) this.runtime.functions.cudaGraphExecDestroy(handle);
    this.graphs.clear();
  }

  private capture(hash: number, calls: readonly Call[]): void {
    try {
      const graph = this.runtime.captureGraph(
        this.stream,
        () => enqueueAll(calls),
        (captured) => this.executable(hash, captured),
      );
      this.graphs.set(hash, { calls, ...graph });
      log.debug('A step is captured as a CUDA graph', {
        calls: calls.length,
        graphs: this.graphs.size,
        bytes: this.bytes,
      });
    } catch (error) {
      this.capturing = false;
      this.runtime.functions.cudaGetLastError();
      const reason = error instanceof Error ? error.message : String(error);
      log.warn(`No more CUDA graphs are made, steps without one are enqueued op by op: ${reason}`);
    }
  }

  /** An executable graph of what was captured: where there are as many as there may be, the one used longest ago becomes it. */
  private executable(hash: number, captured: number): { handle: number; bytes: number } {
    const oldest = this.takeOldest(hash);
    if (oldest !== null && this.becomes(oldest, captured)) return { handle: oldest.handle, bytes: oldest.bytes };
    const { freeBytes } = this.runtime.memoryInfo();
    const handle = this.runtime.instantiateGraph(captured);
    return { handle, bytes: Math.max(0, freeBytes - this.runtime.memoryInfo().freeBytes) };
  }

  /** Whether the graph has become what was captured; else it is gone. */
  private becomes({ handle }: Graph, captured: number): boolean {
    const { cudaStreamSynchronize, cudaGraphExecDestroy } = this.runtime.functions;
    let updated = false;
    try {
      updated = this.runtime.updateGraph(handle, captured);
      return updated;
    } finally {
      // Its last launch may still wait; if that fails, whoever waits next hears of it.
      if (!updated) {
        cudaStreamSynchronize(this.stream);
        cudaGraphExecDestroy(handle);
      }
    }
  }

  /** The graph that has to go, for one of this hash to come. */
  private takeOldest(hash: number): Graph | null {
    const full = this.graphs.size >= this.maxGraphs && !this.graphs.has(hash);
    const oldest = full ? this.graphs.keys().next().value : hash;
    const graph = oldest === undefined ? undefined : this.graphs.get(oldest);
    if (graph === undefined) return null;
    this.graphs.delete(oldest!);
    return graph;
  }
}

function enqueueAll(calls: readonly Call[]): void {
  for (const { op, args } of calls) op(...args);
}
