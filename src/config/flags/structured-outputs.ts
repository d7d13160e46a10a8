import type { FlagTable } from './flag.ts';

export const structuredOutputsFlags = {
  'structured-outputs-config': {
    type: 'json',
    default: {},
    help: 'How grammars are made: backend (auto or guidance), disable_any_whitespace, disable_additional_properties.',
  },
} as const satisfies FlagTable;
