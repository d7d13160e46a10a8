import type { FlagTable } from './flag.ts';

export const loraFlags = {
  'enable-lora': {
    type: 'boolean',
    default: false,
    help: 'Serve LoRA adapters beside the model.',
  },
  'lora-modules': {
    type: 'list',
    default: [],
    metavar: 'NAME=PATH',
    help: 'Adapters to load at the start, as name=path or as JSON with name, path and base_model_name: a folder in PEFT format, an embedded adapter (demo-pirate) or a Hub id.',
  },
  'max-loras': {
    type: 'int',
    default: 1,
    min: 1,
    help: 'Most different adapters in one step; requests of others wait.',
  },
  'max-lora-rank': {
    type: 'int',
    default: 16,
    min: 1,
    metavar: 'RANK',
    help: 'Largest rank of an adapter: 1, 8, 16, 32, 64, 128, 256, 320 or 512.',
  },
  'max-lora-cls-labels': {
    type: 'int',
    default: null,
    min: 1,
    metavar: 'CLASSES',
    help: "Most classes that an adapter's head may have. By default those of the model.",
  },
  'max-cpu-loras': {
    type: 'int',
    default: null,
    min: 1,
    help: 'Adapters that are kept in memory; the least recently used goes first and is read from its folder again when it is asked for. By default max-loras.',
  },
  'lora-dtype': {
    type: 'string',
    choices: ['auto', 'bfloat16', 'float16'],
    default: 'auto',
    help: "Type that adapters are kept in; auto: the model's.",
  },
  'allow-runtime-lora-updating': {
    type: 'boolean',
    default: false,
    env: 'BAO_ALLOW_RUNTIME_LORA_UPDATING',
    help: "Let requests load and unload adapters (/v1/load_lora_adapter, /v1/unload_lora_adapter). Whoever may call the API then names folders of the server's machine.",
  },
} as const satisfies FlagTable;
