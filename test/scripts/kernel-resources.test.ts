import { expect, test } from 'bun:test';
import { describeResources, parseKernelResources } from '../../scripts/kernel-resources.ts';

const OUTPUT = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1aPf' for 'sm_90a'
ptxas info    : Function properties for _Z1aPf
    104 bytes stack frame, 148 bytes spill stores, 172 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 104 bytes cumulative stack size
ptxas info    : Compile time = 80.000 ms
ptxas info    : Compiling entry function '_Z1bPf' for 'sm_80'
ptxas info    : Function properties for _Z1bPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers
`;

test('registers, local memory and spills of each kernel are read from what ptxas prints', () => {
  const kernels = parseKernelResources(OUTPUT);
  expect(kernels).toEqual([
    { kernel: '_Z1aPf', arch: 'sm_90a', registers: 168, stackBytes: 104, spillStoreBytes: 148, spillLoadBytes: 172 },
    { kernel: '_Z1bPf', arch: 'sm_80', registers: 20, stackBytes: 0, spillStoreBytes: 0, spillLoadBytes: 0 },
  ]);
  expect(describeResources(kernels).split('\n')).toEqual([
    'sm_90a _Z1aPf: 168 registers, 104 bytes of local memory, 148 + 172 bytes spilled',
    '2 kernels, at most 168 registers; 1 use local memory, 1 spill',
  ]);
});
