import type { FlagTable } from './flag.ts';

export const structuredOutputsFlags = {
  'structured-outputs-config': {
    type: 'json',
    default: {},
    help: 'How grammars are made: backend (auto, guidance or xgrammar), disable_any_whitespace, disable_additional_properties.',
  },
} as const satisfies FlagTable;
