import type { FlagTable } from './flag.ts';

export const speculativeFlags = {
  'speculative-config': {
    type: 'json',
    default: {},
    aliases: ['-sc'],
    help: 'Speculative decoding: method (ngram or draft_model), num_speculative_tokens; of ngram prompt_lookup_max and prompt_lookup_min; of a draft model model, revision and quantization. Answers stay the same; see docs/speculative-decoding.md.',
  },
  'spec-method': {
    type: 'string',
    default: null,
    metavar: 'ngram|draft_model',
    help: 'Where drafts come from: ngram finds them in the text itself, draft_model has a smaller model make them. The same as --speculative-config.method.',
  },
  'spec-model': {
    type: 'string',
    default: null,
    metavar: 'MODEL',
    help: 'The draft model: a folder, a Hub id, or an embedded model (demo-draft). The same as --speculative-config.model.',
  },
  'spec-tokens': {
    type: 'int',
    default: null,
    metavar: 'TOKENS',
    help: 'Most tokens drafted for a request in a step. The same as --speculative-config.num_speculative_tokens.',
  },
} as const satisfies FlagTable;
