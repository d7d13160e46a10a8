import { expect, test } from 'bun:test';
import { join } from 'node:path';

/** What a block may have on devices of compute capability 8.6, 8.9 and 12.0. */
const LEAST_SHARED_BYTES = 99 * 1024;

/** Cases that the emulation with so much shared memory for a block does not run as the CPU does. */
async function faultsWith(sharedBytes: number, dtype: string): Promise<string[]> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, 'run-small-blocks.ts'), dtype], {
    env: { ...process.env, BAO_CUDA_EMULATION_SHARED_MEMORY: String(sharedBytes) },
    stderr: 'inherit',
  });
  const { numCases, faults } = JSON.parse(await new Response(child.stdout).text());
  expect(numCases).toBeGreaterThan(100);
  return faults;
}

test.each(['bfloat16', 'float16'])('all ops run on devices whose blocks have 99 KiB, %s', async (dtype) => {
  expect(await faultsWith(LEAST_SHARED_BYTES, dtype)).toEqual([]);
});

test('and what asks for more is told', async () => {
  const faults = await faultsWith(64 * 1024, 'bfloat16');
  expect(
    faults.some((fault) => /^great heads: paged_attention: .*cudaError/.test(fault)),
    faults.join('\n'),
  ).toBe(true);
});
