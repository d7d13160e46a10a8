import type { FlagTable } from './flag.ts';

export const parallelFlags = {
  'data-parallel-size': {
    type: 'int',
    default: 1,
    min: 1,
    max: 256,
    aliases: ['-dp'],
    metavar: 'CORES',
    help: 'Number of engine cores, each with the whole model, its own KV cache and a CUDA device or CPU core of its own; requests are balanced over them.',
  },
  'tensor-parallel-size': {
    type: 'int',
    default: 1,
    min: 1,
    aliases: ['-tp'],
    metavar: 'DEVICES',
    help: 'Devices that share each layer: 1, a model runs on one device.',
  },
  'pipeline-parallel-size': {
    type: 'int',
    default: 1,
    min: 1,
    aliases: ['-pp'],
    metavar: 'DEVICES',
    help: 'Devices that share the layers: 1, a model runs on one device.',
  },
  'distributed-executor-backend': {
    type: 'string',
    default: 'uni',
    metavar: 'uni|NAME',
    help: "Executor that runs the model: uni (the core's own thread), or one that a plugin has registered under this name.",
  },
} as const satisfies FlagTable;
