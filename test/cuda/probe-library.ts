import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ensureCudaEmulation } from '../../scripts/build-cuda.ts';
import { findCompiler, run } from '../../scripts/compiler.ts';

const SOURCE = join(import.meta.dir, 'probe.cu');

/** probe.cu compiled against the emulation, beside the stand-in libraries that it was built with. */
export async function probeLibrary(): Promise<string> {
  const cudart = (await ensureCudaEmulation({ quiet: true })).cudart[0]!;
  const library = join(dirname(cudart), `probe-${Bun.hash(readFileSync(SOURCE)).toString(16)}.so`);
  if (existsSync(library)) return library;
  mkdirSync(dirname(library), { recursive: true });
  const scratch = `${library}.${process.pid}`;
  const flags = ['-std=c++20', '-O1', '-fPIC', '-shared', '-Wl,-rpath,$ORIGIN', '-x', 'c++'];
  await run(findCompiler(), [...flags, SOURCE, '-x', 'none', cudart, '-o', scratch]);
  renameSync(scratch, library);
  return library;
}
