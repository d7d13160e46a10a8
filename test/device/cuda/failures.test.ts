import { describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CUBLAS_SYMBOLS } from '../../../src/device/cuda/cublas.ts';
import { CUBLASLT_SYMBOLS } from '../../../src/device/cuda/cublas-lt.ts';
import { CUDART_SYMBOLS } from '../../../src/device/cuda/cuda-runtime.ts';
import { NCCL_SYMBOLS } from '../../../src/device/cuda/nccl.ts';
import type { Outcome } from './run-failures.ts';

/** Codes that fail each call, and what is thrown, which names the call and the code. */
const THROWN: Readonly<Record<string, readonly [code: number, thrown: string]>> = {
  cudaRuntimeGetVersion: [1, 'cudaRuntimeGetVersion: cudaErrorInvalidValue'],
  cudaGetDeviceCount: [35, 'no CUDA device: cudaGetDeviceCount: cudaErrorInsufficientDriver'],
  cudaSetDevice: [101, 'cudaSetDevice: cudaErrorInvalidDevice'],
  cudaDeviceGetAttribute: [1, 'cudaDeviceGetAttribute: cudaErrorInvalidValue'],
  cudaStreamCreateWithFlags: [2, 'cudaStreamCreateWithFlags: cudaErrorMemoryAllocation'],
  cudaEventCreateWithFlags: [2, 'cudaEventCreateWithFlags: cudaErrorMemoryAllocation'],
  cudaMalloc: [1, 'cudaMalloc: cudaErrorInvalidValue'],
  cudaHostAlloc: [1, 'cudaHostAlloc: cudaErrorInvalidValue'],
  cudaMemsetAsync: [700, 'cudaMemsetAsync: cudaErrorIllegalAddress'],
  cudaMemcpyAsync: [700, 'cudaMemcpyAsync: cudaErrorIllegalAddress'],
  cudaEventRecord: [719, 'cudaEventRecord: cudaErrorLaunchFailure'],
  cudaEventQuery: [719, 'cudaEventQuery: cudaErrorLaunchFailure'],
  cudaEventSynchronize: [719, 'cudaEventSynchronize: cudaErrorLaunchFailure'],
  cudaGraphLaunch: [719, 'cudaGraphLaunch: cudaErrorLaunchFailure'],
  cudaFree: [700, 'cudaFree: cudaErrorIllegalAddress'],
  cudaFreeHost: [700, 'cudaFreeHost: cudaErrorIllegalAddress'],
  cudaDeviceCanAccessPeer: [101, 'cudaDeviceCanAccessPeer: cudaErrorInvalidDevice'],
  cudaDeviceEnablePeerAccess: [101, 'cudaDeviceEnablePeerAccess: cudaErrorInvalidDevice'],
  cudaMemcpyPeerAsync: [700, 'cudaMemcpyPeerAsync: cudaErrorIllegalAddress'],
  launch: [719, 'cudaErrorLaunchFailure'],
  cublasGetProperty: [7, 'cublasGetProperty: CUBLAS_STATUS_INVALID_VALUE'],
  cublasCreate_v2: [3, 'cublasCreate: CUBLAS_STATUS_ALLOC_FAILED'],
  cublasSetStream_v2: [1, 'cublasSetStream: CUBLAS_STATUS_NOT_INITIALIZED'],
  cublasSetWorkspace_v2: [7, 'cublasSetWorkspace: CUBLAS_STATUS_INVALID_VALUE'],
  cublasGemmEx: [13, 'cublasGemmEx: CUBLAS_STATUS_EXECUTION_FAILED'],
  cublasGemmStridedBatchedEx: [14, 'cublasGemmStridedBatchedEx: CUBLAS_STATUS_INTERNAL_ERROR'],
  cublasLtCreate: [1, 'cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED'],
  cublasLtMatmulDescCreate: [3, 'cublasLtMatmulDescCreate: CUBLAS_STATUS_ALLOC_FAILED'],
  cublasLtMatmulDescSetAttribute: [7, 'cublasLtMatmulDescSetAttribute: CUBLAS_STATUS_INVALID_VALUE'],
  cublasLtMatrixLayoutCreate: [3, 'cublasLtMatrixLayoutCreate: CUBLAS_STATUS_ALLOC_FAILED'],
  cublasLtMatmulPreferenceCreate: [3, 'cublasLtMatmulPreferenceCreate: CUBLAS_STATUS_ALLOC_FAILED'],
  cublasLtMatmulPreferenceSetAttribute: [7, 'cublasLtMatmulPreferenceSetAttribute: CUBLAS_STATUS_INVALID_VALUE'],
  cublasLtMatmulAlgoGetHeuristic: [8, 'cublasLtMatmulAlgoGetHeuristic: CUBLAS_STATUS_ARCH_MISMATCH'],
  cublasLtMatmul: [13, 'cublasLtMatmul: CUBLAS_STATUS_EXECUTION_FAILED'],
  ncclGetVersion: [2, 'ncclGetVersion: unhandled system error'],
  ncclGetUniqueId: [2, 'ncclGetUniqueId: unhandled system error'],
  ncclCommInitRank: [1, 'ncclCommInitRank: unhandled cuda error'],
  ncclAllReduce: [1, 'ncclAllReduce: unhandled cuda error'],
  ncclAllGather: [1, 'ncclAllGather: unhandled cuda error'],
  ncclReduceScatter: [1, 'ncclReduceScatter: unhandled cuda error'],
  ncclGroupStart: [5, 'ncclGroupStart: invalid usage'],
  ncclSend: [4, 'ncclSend: invalid argument'],
  ncclRecv: [4, 'ncclRecv: invalid argument'],
  ncclGroupEnd: [5, 'ncclGroupEnd: invalid usage'],
  ncclCommDestroy: [4, 'ncclCommDestroy: invalid argument'],
};

/** Without graphs the work goes on: one line in the log says why. */
const NO_GRAPHS = [
  ...['cudaMemGetInfo', 'cudaStreamBeginCapture', 'cudaStreamEndCapture', 'cudaGraphInstantiate'],
  'cudaGraphExecUpdate',
];

/** Whose codes nobody can do anything about: the device is closed, or is one that failed. */
const CLOSING = [
  ...['cudaStreamSynchronize', 'cudaStreamDestroy', 'cudaEventDestroy', 'cudaGraphDestroy', 'cudaGraphExecDestroy'],
  ...['cublasDestroy_v2', 'cublasLtDestroy', 'cublasLtMatmulDescDestroy', 'cublasLtMatrixLayoutDestroy'],
  'cublasLtMatmulPreferenceDestroy',
];

/** Tell of errors or of what there is, and have no way to fail. */
const NO_CODE = [
  ...['cudaGetErrorName', 'cudaGetErrorString', 'cudaGetLastError', 'cublasGetStatusName', 'cublasLtGetStatusName'],
  ...['cublasLtGetVersion', 'ncclGetErrorString'],
];

interface Run {
  outcomes: Outcome[];
  log: string;
}

function run(injections: readonly string[], env: Readonly<Record<string, string>> = {}): Run {
  const folder = mkdtempSync(join(tmpdir(), 'bao-failures-'));
  try {
    const child = Bun.spawnSync([process.execPath, join(import.meta.dir, 'run-failures.ts'), ...injections], {
      env: {
        ...process.env,
        BAO_CUDA_EMULATION_FAIL_FILE: join(folder, 'failures'),
        BAO_CUDA_EMULATION_DEVICES: String(2 * injections.length),
        // What waits for a call that failed shall not keep the test waiting.
        BAO_CUDA_EMULATION_NCCL_TIMEOUT_MS: '1000',
        ...env,
      },
    });
    const lines = child.stdout.toString().split('\n').filter(Boolean);
    return { outcomes: lines.map((line) => JSON.parse(line)), log: child.stderr.toString() };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Each failure happened: a call that the program does not make would fail no test. */
function expectInjected(log: string, injections: readonly string[]): void {
  const injected = [...log.matchAll(/^CUDA emulation: (\w+) fails with (\d+)$/gm)].map(
    ([, call, code]) => `${call}=${code}`,
  );
  expect(injected).toEqual([...injections]);
}

describe('failures of calls', () => {
  test('every function that is bound is in one of the lists', () => {
    const listed = [...Object.keys(THROWN), ...NO_GRAPHS, ...CLOSING, ...NO_CODE];
    const tables = [CUDART_SYMBOLS, CUBLAS_SYMBOLS, CUBLASLT_SYMBOLS, NCCL_SYMBOLS];
    const bound = [...tables.flatMap((table) => Object.keys(table)), 'ncclCommInitRank', 'launch'];
    expect(listed.toSorted()).toEqual(bound.toSorted());
  });

  const thrown = Object.entries(THROWN).map(([call, [code]]) => `${call}=${code}`);
  const { outcomes, log } = run(thrown);
  test('all happen', () => expectInjected(log, thrown));
  test.each(Object.entries(THROWN).map(([call, [, text]], i) => [call, text, i] as const))(
    'of %s is thrown by name',
    (_, text, i) => {
      expect(outcomes[i]!.thrown).toContain(text);
    },
  );

  test('of memory that runs out are tried once more, and thrown with what it was for', () => {
    const once = ['cudaMalloc=2', 'cudaHostAlloc=2'];
    expect(run(once).outcomes).toEqual(once.map(() => ({ thrown: null, leakedBytes: 0 })));
    const twice = once.map((call) => `${call},${call.replace('=', '@2=')}`);
    const thrown = run(twice).outcomes.map((outcome) => outcome.thrown);
    expect(thrown[0]).toStartWith('the CUDA device is out of memory: no 1.0 MiB for cuBLAS workspace');
    expect(thrown[1]).toMatch(/^the host has no [\d.]+ KiB of pinned memory for x$/);
  });

  test('of a capture leave the work without graphs', () => {
    const injections = NO_GRAPHS.map((call) => `${call}=2`);
    const { outcomes, log } = run(injections);
    expectInjected(log, injections);
    expect(outcomes).toEqual(NO_GRAPHS.map(() => ({ thrown: null, leakedBytes: 0 })));
    expect(log.match(/No more CUDA graphs are made/g)).toHaveLength(NO_GRAPHS.length);
    for (const call of NO_GRAPHS) expect(log).toContain(`${call}: cudaErrorMemoryAllocation`);
  });

  test('of calls that close are passed over, and the rest is closed all the same', () => {
    const injections = CLOSING.map((call) => `${call}=1`);
    const { outcomes, log } = run(injections);
    expectInjected(log, injections);
    const leaking = CLOSING.filter((_, i) => outcomes[i]!.leakedBytes > 0);
    expect(outcomes.map(({ thrown }) => thrown)).toEqual(CLOSING.map(() => null));
    // A graph that can't be destroyed keeps its memory.
    expect(leaking).toEqual(['cudaGraphExecDestroy']);
  });
});

test('what failed first in a group of NCCL is told, not that the group failed', () => {
  expect(run(['ncclSend=4,ncclGroupEnd=4']).outcomes[0]!.thrown).toContain('ncclSend: invalid argument');
});

test.each([
  ['CUDART', '11080', 'no CUDA device: libcudart is of version 11080, at least 12000 is needed'],
  ['CUBLAS', '110603', 'no CUDA device: libcublas is of version 11, at least 12 is needed'],
  ['CUBLASLT', '110603', 'no CUDA device: libcublasLt is of version 110603, at least 120000 is needed'],
  ['NCCL', '21403', 'libnccl is of version 21403, at least 21800 is needed'],
])('a lib%s that is too old is told', (library, version, told) => {
  const { outcomes } = run(['none=1'], { [`BAO_CUDA_EMULATION_${library}_VERSION`]: version });
  expect(outcomes[0]?.thrown).toBe(told);
});
