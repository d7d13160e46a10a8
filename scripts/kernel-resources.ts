/** What a kernel takes, as ptxas reports it with -v. */
export interface KernelResources {
  /** Mangled. */
  kernel: string;
  arch: string;
  registers: number;
  /** Bytes of local memory a thread: arrays that are indexed by what the compiler does not know, and spilled registers. */
  stackBytes: number;
  spillStoreBytes: number;
  spillLoadBytes: number;
}

const ENTRY = /Compiling entry function '(\w+)' for '(\w+)'/;
const STACK = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/;
const REGISTERS = /Used (\d+) registers/;

/** Reads the output of `nvcc -Xptxas -v`. */
export function parseKernelResources(output: string): KernelResources[] {
  const found: KernelResources[] = [];
  let name: { kernel: string; arch: string } | null = null;
  let stack: number[] = [];
  for (const line of output.split('\n')) {
    const [, kernel, arch] = ENTRY.exec(line) ?? [];
    if (kernel !== undefined) name = { kernel, arch: arch! };
    const sizes = STACK.exec(line);
    if (sizes !== null) stack = sizes.slice(1).map(Number);
    const registers = REGISTERS.exec(line);
    if (registers === null || name === null) continue;
    const [stackBytes = 0, spillStoreBytes = 0, spillLoadBytes = 0] = stack;
    found.push({ ...name, registers: Number(registers[1]), stackBytes, spillStoreBytes, spillLoadBytes });
    name = null;
    stack = [];
  }
  return found;
}

/** One line for each kernel that uses local memory, and a line for all. */
export function describeResources(kernels: readonly KernelResources[]): string {
  const local = kernels.filter(({ stackBytes, spillStoreBytes }) => stackBytes + spillStoreBytes > 0);
  const lines = local.map(
    ({ kernel, arch, registers, stackBytes, spillStoreBytes, spillLoadBytes }) =>
      `${arch} ${kernel}: ${registers} registers, ${stackBytes} bytes of local memory, ${spillStoreBytes} + ${spillLoadBytes} bytes spilled`,
  );
  const most = kernels.reduce((max, { registers }) => Math.max(max, registers), 0);
  const spilling = kernels.filter(({ spillStoreBytes }) => spillStoreBytes > 0).length;
  const sum = `${kernels.length} kernels, at most ${most} registers; ${local.length} use local memory, ${spilling} spill`;
  return [...lines, sum].join('\n');
}
