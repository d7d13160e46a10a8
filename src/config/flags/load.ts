import type { FlagTable } from './flag.ts';

export const loadFlags = {
  'load-format': {
    type: 'string',
    choices: ['auto', 'safetensors', 'dummy'],
    default: 'auto',
    help: 'auto and safetensors read the checkpoint; dummy makes random weights from config.json alone.',
  },
  'download-dir': {
    type: 'string',
    default: null,
    metavar: 'FOLDER',
    help: 'Where downloads from the Hub are kept; by default the Hugging Face cache.',
  },
} as const satisfies FlagTable;
