import type { FlagTable } from './flag.ts';

export const deviceFlags = {
  device: {
    type: 'string',
    choices: ['auto', 'cpu'],
    default: 'auto',
    help: 'Where the model runs; auto takes the best device there is.',
  },
  'cpu-threads': {
    type: 'int',
    default: null,
    min: 1,
    env: 'BAO_CPU_THREADS',
    metavar: 'THREADS',
    help: 'Compute threads of all engine cores together. By default one for each physical core that this process may use.',
  },
} as const satisfies FlagTable;
