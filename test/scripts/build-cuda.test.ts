import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { archOf, CUDART_SONAMES } from '../../scripts/build-cuda.ts';

const SCRIPT = `
import { CUBLAS_SONAMES, CUDART_SONAMES, findNvcc, libraryCandidates } from ${JSON.stringify(resolve(import.meta.dir, '../../scripts/build-cuda.ts'))};
console.log(JSON.stringify({ nvcc: findNvcc(), cudart: libraryCandidates(CUDART_SONAMES), cublas: libraryCandidates(CUBLAS_SONAMES) }));`;

interface Found {
  nvcc: string | null;
  cudart: string[];
  cublas: string[];
}

describe('where CUDA is looked for', () => {
  let folder = '';
  beforeEach(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), 'bao-build-cuda-')));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** A file of the folder; a program where it has text. */
  function make(path: string, text = ''): string {
    const file = join(folder, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    if (text !== '') chmodSync(file, 0o755);
    return file;
  }

  /** What is found in an environment of its own, but for what this machine has under /usr. */
  function find(env: Readonly<Record<string, string>>): Found {
    const { stdout, stderr } = Bun.spawnSync([process.execPath, '-e', SCRIPT], { env });
    const found = JSON.parse(stdout.toString() || `"${stderr}"`) as Found;
    const elsewhere = (paths: string[]) => paths.filter((path) => !path.startsWith('/usr'));
    return { ...found, cudart: elsewhere(found.cudart), cublas: elsewhere(found.cublas) };
  }

  test("an nvcc of the PATH, and libraries of its version before newer ones of the loader and of Python's packages", () => {
    const nvcc = make('toolkit/bin/nvcc', '#!/bin/sh\n');
    const cudart = make('toolkit/lib64/libcudart.so.12');
    make('bin/python3', `#!/bin/sh\necho ${join(folder, 'venv/nvidia')}\necho ${join(folder, 'user/nvidia')}\n`);
    const cublas13 = make('venv/nvidia/cu13/lib/libcublas.so.13');
    const cublas12 = make('user/nvidia/cublas/lib/libcublas.so.12');
    const found = find({ PATH: `${join(folder, 'bin')}:${dirname(nvcc)}` });
    expect(found.nvcc).toBe(nvcc);
    expect(found.cudart).toEqual([cudart, 'libcudart.so.12', 'libcudart.so.13']);
    expect(found.cublas).toEqual(['libcublas.so.12', cublas12, 'libcublas.so.13', cublas13]);
  });

  test('the nvcc of CUDA_HOME; sonames come first where there is none, newest before', () => {
    const home = join(folder, 'home');
    const cudart = make('home/targets/x86_64-linux/lib/libcudart.so.13');
    expect(find({ CUDA_HOME: home, PATH: '' }).cudart).toEqual([...CUDART_SONAMES, cudart]);
    const nvcc = make('home/bin/nvcc', '#!/bin/sh\n');
    const found = find({ CUDA_HOME: home, PATH: '' });
    expect(found.nvcc).toBe(nvcc);
    expect(found.cudart).toEqual([cudart, ...CUDART_SONAMES]);
  });
});

test('architectures whose instructions have names of their own', () => {
  expect(['80', '90', '100', '120'].map(archOf)).toEqual(['sm_80', 'sm_90a', 'sm_100a', 'sm_120']);
});
