import { logger } from '../../logging/logger.ts';
import type { Ops } from '../device.ts';
import { type Recorder, StepRecordings } from '../step-recordings.ts';
import type { CudaRuntime } from './cuda-runtime.ts';

const log = logger('cuda');

interface Graph {
  /** The executable graph. */
  readonly handle: number;
  /** Of device memory. */
  readonly bytes: number;
}

/** Steps as CUDA graphs. Once a capture has failed no more are tried, and steps that have no graph are enqueued call by call. */
export class StepGraphs implements Recorder<Graph> {
  private readonly steps: StepRecordings<Graph>;

  /** @param maxGraphs how many are kept; 0: none is made */
  constructor(
    private readonly runtime: CudaRuntime,
    private readonly stream: number,
    ops: Ops,
    maxGraphs: number,
  ) {
    this.steps = new StepRecordings(ops, this, maxGraphs);
  }

  /** The ops, which within `run` are only noted. */
  get ops(): Ops {
    return this.steps.ops;
  }

  /** Device memory of all graphs. */
  get bytes(): number {
    return this.steps.recordings().reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Enqueues the ops that `enqueue` calls. Throws what they throw, and a CudaError where a graph can't be launched. */
  run<Result>(enqueue: () => Result): Result {
    return this.steps.run(enqueue);
  }

  /** Forgets all graphs and makes no more, for memory that is needed more. */
  giveUp(): void {
    const { length } = this.steps.recordings();
    if (length === 0) return;
    log.warn(`Memory runs out: ${length} CUDA graphs are given up, and no more are made`);
    this.steps.stop();
    this.runtime.check('cudaStreamSynchronize', this.runtime.functions.cudaStreamSynchronize(this.stream));
    this.clear();
  }

  /** Forgets all graphs. Their launches must be done. */
  clear(): void {
    this.steps.clear();
  }

  record(enqueue: () => void, oldest: Graph | null): Graph | null {
    try {
      const graph = this.runtime.captureGraph(this.stream, enqueue, (captured) => this.executable(captured, oldest));
      log.debug('A step is captured as a CUDA graph', { bytes: graph.bytes });
      return graph;
    } catch (error) {
      this.runtime.functions.cudaGetLastError();
      const reason = error instanceof Error ? error.message : String(error);
      log.warn(`No more CUDA graphs are made, steps without one are enqueued op by op: ${reason}`);
      return null;
    }
  }

  replay({ handle }: Graph): void {
    this.runtime.check('cudaGraphLaunch', this.runtime.functions.cudaGraphLaunch(handle, this.stream));
  }

  discard({ handle }: Graph): void {
    this.runtime.functions.cudaGraphExecDestroy(handle);
  }

  /** An executable graph of what was captured: the oldest becomes it, where there is one that can. */
  private executable(captured: number, oldest: Graph | null): Graph {
    if (oldest !== null && this.becomes(oldest, captured)) return oldest;
    const { freeBytes } = this.runtime.memoryInfo();
    const handle = this.runtime.instantiateGraph(captured);
    return { handle, bytes: Math.max(0, freeBytes - this.runtime.memoryInfo().freeBytes) };
  }

  /** Whether the graph has become what was captured; else it is gone. */
  private becomes(graph: Graph, captured: number): boolean {
    let updated = false;
    try {
      updated = this.runtime.updateGraph(graph.handle, captured);
      return updated;
    } finally {
      // Its last launch may still wait; if that fails, whoever waits next hears of it.
      if (!updated) {
        this.runtime.functions.cudaStreamSynchronize(this.stream);
        this.discard(graph);
      }
    }
  }
}
