import type { FlagTable } from './flag.ts';

export const deviceFlags = {
  device: {
    type: 'string',
    choices: ['auto', 'cpu', 'cuda', 'cuda-emulation'],
    default: 'auto',
    help: 'Where the model runs. auto is cpu for now; cuda takes an NVIDIA GPU (compute capability 8.0 or later); cuda-emulation runs the CUDA kernels on the CPU, for tests in a checkout.',
  },
  'cpu-threads': {
    type: 'int',
    default: null,
    min: 1,
    env: 'BAO_CPU_THREADS',
    metavar: 'THREADS',
    help: 'Compute threads of all engine cores together. By default one for each physical core that this process may use.',
  },
  'cpu-threads-bind': {
    type: 'string',
    choices: ['auto', 'nobind'],
    default: 'auto',
    env: 'BAO_CPU_OMP_THREADS_BIND',
    help: 'auto: where there are as many compute threads as physical cores that this process may use (see taskset), each thread stays on one. nobind: the system moves them.',
  },
} as const satisfies FlagTable;
