import type { FlagTable } from './flag.ts';

export const compilationFlags = {
  'enforce-eager': {
    type: 'boolean',
    default: false,
    help: 'No CUDA graphs: every kernel is launched on its own.',
  },
  'cudagraph-capture-sizes': {
    type: 'list',
    default: [],
    separator: ',',
    metavar: 'SIZES',
    help: 'Numbers of sequences that decode steps are filled up to and captured at as CUDA graphs, each when it first occurs. By default 1, 2, 4, multiples of 8 below 256 and of 16 from there on.',
  },
  'max-cudagraph-capture-size': {
    type: 'int',
    default: null,
    min: 1,
    metavar: 'SIZE',
    help: 'Largest of the default capture sizes. By default twice max-num-seqs, at most 512.',
  },
} as const satisfies FlagTable;
