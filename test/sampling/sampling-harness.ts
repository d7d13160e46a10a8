import { ensureCpuLibrary } from '../../scripts/build-cpu.ts';
import type { CpuIsa } from '../../src/device/cpu-library.ts';
import { createDevice } from '../../src/device/create-device.ts';
import type { Device, DevicePtr } from '../../src/device/device.ts';
import type { LogprobsTensors } from '../../src/sampling/logprobs-tensors.ts';
import { type LogprobsMode, SamplingBatch, type SamplingResult } from '../../src/sampling/sampling-batch.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';
import { forceToken, prepareSampling } from '../../src/sampling/sampling-request.ts';

const libraryPath = await ensureCpuLibrary({ quiet: true, sets: 'runnable' });

export function openCpuDevice(threads = 2, isa?: CpuIsa): Promise<Device> {
  return createDevice('cpu', { libraryPath, threads, isa });
}

export interface TestRow {
  logits: ArrayLike<number>;
  params?: Partial<SamplingParams>;
  /** Prompt, then output. */
  prompt?: number[];
  output?: number[];
  seed?: bigint;
  eosTokenIds?: number[];
  bitmask?: Int32Array | null;
  /** The only token that may be drawn, whatever `params` say. */
  forcedToken?: number;
  /** Instead of the history's length, for a row without history. */
  numTokens?: number;
}

export interface TestResult {
  tokens: number[];
  logprobs: (LogprobsTensors | null)[];
  /** The logits after the step, row by row. */
  logitsAfter: Float32Array[];
  /** The token table's entry behind each row's history. */
  tableEntries: number[];
}

const MAX_ROWS = 512;
const MAX_TOKENS = 64;

/** Drives SamplingBatch as the model runner does, with logits from the test. */
export class SamplingHarness {
  private readonly batch: SamplingBatch;
  private readonly logits: DevicePtr;
  private readonly logitsHost: Float32Array;
  private readonly table: DevicePtr;
  private readonly tableHost: Int32Array;

  constructor(
    readonly device: Device,
    readonly vocabSize: number,
    logprobsMode: LogprobsMode = 'raw_logprobs',
    maxRows = MAX_ROWS,
  ) {
    this.batch = new SamplingBatch(device, { maxRows, vocabSize, logprobsMode });
    const logits = device.staging(maxRows * vocabSize * 4, 'test');
    this.logits = logits.ptr;
    this.logitsHost = new Float32Array(logits.host, 0, maxRows * vocabSize);
    const table = device.staging(maxRows * MAX_TOKENS * 4, 'test');
    this.table = table.ptr;
    this.tableHost = new Int32Array(table.host, 0, maxRows * MAX_TOKENS);
  }

  /** Enqueues a step; the logits of a step before must have been used up. */
  enqueue(rows: readonly TestRow[]): SamplingResult {
    this.batch.begin(rows.length);
    for (const [i, row] of rows.entries()) {
      this.logitsHost.set(row.logits, i * this.vocabSize);
      const prompt = row.prompt ?? [];
      const history = [...prompt, ...(row.output ?? [])];
      this.tableHost.fill(-1, i * MAX_TOKENS, (i + 1) * MAX_TOKENS);
      this.tableHost.set(history, i * MAX_TOKENS);
      const request = prepareSampling(
        { ...DEFAULT_SAMPLING_PARAMS, ...row.params },
        { eosTokenIds: row.eosTokenIds ?? [], seed: row.seed ?? BigInt(i), vocabSize: this.vocabSize },
      );
      const hasHistory = row.numTokens === undefined;
      this.batch.setRow(i, row.forcedToken === undefined ? request : forceToken(request, row.forcedToken), {
        slot: hasHistory ? i : -1,
        numPromptTokens: prompt.length,
        numTokens: row.numTokens ?? history.length,
        bitmask: row.bitmask ?? null,
      });
    }
    this.batch.upload();
    this.batch.sample(this.logits, this.table, MAX_TOKENS);
    return this.batch.finish(this.logits);
  }

  sample(rows: readonly TestRow[]): TestResult {
    const result = this.enqueue(rows);
    this.device.wait(result.event);
    const { vocabSize } = this;
    return {
      tokens: rows.map((_, i) => result.sampled(i)),
      logprobs: rows.map((_, i) => result.logprobs(i)),
      logitsAfter: rows.map((_, i) => this.logitsHost.slice(i * vocabSize, (i + 1) * vocabSize)),
      tableEntries: rows.map((row, i) => {
        const length = (row.prompt?.length ?? 0) + (row.output?.length ?? 0);
        return this.tableHost[i * MAX_TOKENS + length]!;
      }),
    };
  }

  /** How often each token is drawn from one row by `draws` different seeds. */
  histogram(row: TestRow, draws: number): number[] {
    const counts = new Array<number>(this.vocabSize).fill(0);
    for (let done = 0; done < draws; done += MAX_ROWS) {
      const rows = Array.from({ length: Math.min(MAX_ROWS, draws - done) }, (_, i) => ({
        ...row,
        seed: BigInt(done + i) * 0x9e3779b97f4a7c15n,
      }));
      for (const token of this.sample(rows).tokens) counts[token]!++;
    }
    return counts;
  }
}
