import { describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CUBLAS_SYMBOLS } from '../../../src/device/cuda/cublas.ts';
import { CUDART_SYMBOLS } from '../../../src/device/cuda/cuda-runtime.ts';

/** Codes that fail each call, and what is thrown, which names the call and the code. */
const THROWN: Readonly<Record<string, readonly [code: number, thrown: string]>> = {
  cudaRuntimeGetVersion: [1, 'cudaRuntimeGetVersion: cudaErrorInvalidValue'],
  cudaGetDeviceCount: [35, 'no CUDA device: cudaGetDeviceCount: cudaErrorInsufficientDriver'],
  cudaSetDevice: [101, 'cudaSetDevice: cudaErrorInvalidDevice'],
  cudaDeviceGetAttribute: [1, 'cudaDeviceGetAttribute: cudaErrorInvalidValue'],
  cudaStreamCreateWithFlags: [2, 'cudaStreamCreateWithFlags: cudaErrorMemoryAllocation'],
  cudaEventCreateWithFlags: [2, 'cudaEventCreateWithFlags: cudaErrorMemoryAllocation'],
  cudaMalloc: [2, 'the CUDA device is out of memory: no'],
  cudaHostAlloc: [2, 'cudaHostAlloc: cudaErrorMemoryAllocation'],
  cudaMemsetAsync: [700, 'cudaMemsetAsync: cudaErrorIllegalAddress'],
  cudaMemcpyAsync: [700, 'cudaMemcpyAsync: cudaErrorIllegalAddress'],
  cudaEventRecord: [719, 'cudaEventRecord: cudaErrorLaunchFailure'],
  cudaEventQuery: [719, 'cudaEventQuery: cudaErrorLaunchFailure'],
  cudaEventSynchronize: [719, 'cudaEventSynchronize: cudaErrorLaunchFailure'],
  cudaGraphLaunch: [719, 'cudaGraphLaunch: cudaErrorLaunchFailure'],
  cudaFree: [700, 'cudaFree: cudaErrorIllegalAddress'],
  launch: [719, 'cudaErrorLaunchFailure'],
  cublasCreate_v2: [1, 'CUBLAS_STATUS_NOT_INITIALIZED'],
  cublasGemmEx: [13, 'cublasGemmEx: CUBLAS_STATUS_EXECUTION_FAILED'],
  cublasLtCreate: [1, 'cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED'],
  cublasLtMatmul: [13, 'cublasLtMatmul: CUBLAS_STATUS_EXECUTION_FAILED'],
};

/** Without graphs the work goes on: one line in the log says why. */
const NO_GRAPHS = ['cudaMemGetInfo', 'cudaStreamBeginCapture', 'cudaStreamEndCapture', 'cudaGraphInstantiate'];

/** Whose codes nobody can do anything about: the device is closed, or is one that failed. */
const CLOSING = [
  ...['cudaStreamSynchronize', 'cudaStreamDestroy', 'cudaEventDestroy', 'cudaFreeHost'],
  ...['cudaGraphDestroy', 'cudaGraphExecDestroy', 'cublasDestroy_v2'],
];

/** Tell of errors, and have none. */
const TEXTS = ['cudaGetErrorName', 'cudaGetErrorString', 'cudaGetLastError', 'cublasGetStatusName'];

/** Handles and pointers, which the stand-in checks. */
const SETTERS = ['cublasSetStream_v2', 'cublasSetWorkspace_v2'];

/** Not of one device's plain work: they have tests of their own. */
const ELSEWHERE = [
  ...['cudaGraphExecUpdate', 'cudaDeviceCanAccessPeer', 'cudaDeviceEnablePeerAccess', 'cudaMemcpyPeerAsync'],
  'cublasGemmStridedBatchedEx',
];

function run(injections: readonly string[]): { thrown: (string | null)[]; log: string } {
  const folder = mkdtempSync(join(tmpdir(), 'bao-failures-'));
  try {
    const child = Bun.spawnSync([process.execPath, join(import.meta.dir, 'run-failures.ts'), ...injections], {
      env: {
        ...process.env,
        BAO_CUDA_EMULATION_FAIL_FILE: join(folder, 'failures'),
        BAO_CUDA_EMULATION_DEVICES: String(injections.length),
      },
    });
    const lines = child.stdout.toString().split('\n').filter(Boolean);
    return { thrown: lines.map((line) => JSON.parse(line)), log: child.stderr.toString() };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('failures of calls', () => {
  test('every call that is made is in one of the lists', () => {
    const listed = [...Object.keys(THROWN), ...NO_GRAPHS, ...CLOSING, ...TEXTS, ...SETTERS, ...ELSEWHERE];
    const made = [
      ...Object.keys(CUDART_SYMBOLS),
      'launch',
      ...Object.keys(CUBLAS_SYMBOLS),
      'cublasLtCreate',
      'cublasLtMatmul',
    ];
    expect(listed.toSorted()).toEqual(made.toSorted());
  });

  const { thrown } = run(Object.entries(THROWN).map(([call, [code]]) => `${call}=${code}`));
  test.each(Object.entries(THROWN).map(([call, [, text]], i) => [call, text, i] as const))(
    'of %s is thrown by name',
    (_, text, i) => {
      expect(thrown[i]).toContain(text);
    },
  );

  test('of a capture leave the work without graphs', () => {
    const { thrown, log } = run(NO_GRAPHS.map((call) => `${call}=2`));
    expect(thrown).toEqual(NO_GRAPHS.map(() => null));
    expect(log.match(/No more CUDA graphs are made/g)).toHaveLength(NO_GRAPHS.length);
    for (const call of NO_GRAPHS) expect(log).toContain(`${call}: cudaErrorMemoryAllocation`);
  });

  test('of calls that close are passed over', () => {
    expect(run(['cudaStreamSynchronize=719', 'cudaFreeHost=700']).thrown).toEqual([null, null]);
  });
});
