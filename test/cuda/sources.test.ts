import { expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const CUDA = resolve(import.meta.dir, '../../cuda');

/** Bodies of kernels by name, up to the first brace that ends a line of the first column. */
function kernels(): Map<string, string> {
  const found = new Map<string, string>();
  for (const file of readdirSync(CUDA).filter((name) => /\.cuh?$/.test(name))) {
    const text = readFileSync(join(CUDA, file), 'utf8');
    for (const [, name, body] of text.matchAll(/__global__ void[^;{]*?(\w+_kernel)\([^{]*\{\n(.*?)\n\}/gs))
      found.set(`${file} ${name}`, body!);
    const declared = text.match(/__global__ void/g)?.length ?? 0;
    const read = [...found.keys()].filter((key) => key.startsWith(`${file} `)).length;
    expect(read, `kernels read of ${file}`).toBe(declared);
  }
  return found;
}

test('every kernel waits for the one before it, before it touches what that may write', () => {
  for (const [name, body] of kernels()) {
    const lines = body.split('\n').map((line) => line.trim());
    const at = lines.indexOf('await_previous_kernel();');
    // What comes before it reads weights, and they alone.
    expect(at === 0 || (name === 'linear.cu small_linear_kernel' && at > 0), name).toBe(true);
  }
});
