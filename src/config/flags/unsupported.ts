export const ONE_DEVICE = 'a model runs on one device; use --data-parallel-size for several engine cores';
const NO_EXPERT_LORA = 'adapters of the experts of a mixture are not served';
const NO_GPU = 'it concerns GPUs, and the model runs on the CPU';
const TEXT_ONLY = 'models read text only';
const ONE_MACHINE = 'engine cores run in one process on one machine';

/** vLLM's flags that people are likely to bring along, with the reason why Bao refuses them. */
const REASONS: Readonly<Record<string, string>> = {
  'enable-expert-parallel': ONE_DEVICE,
  'data-parallel-address': ONE_MACHINE,
  'data-parallel-backend': ONE_MACHINE,
  'data-parallel-rank': ONE_MACHINE,
  'data-parallel-size-local': ONE_MACHINE,
  headless: ONE_MACHINE,
  nnodes: ONE_MACHINE,
  'code-revision': 'no code of a model repository is ever run',
  'tool-server': 'clients run their tools themselves',
  'fully-sharded-loras': ONE_DEVICE,
  'lora-target-modules': "an adapter's own target_modules decide what it changes",
  'enable-mixed-moe-lora-format': NO_EXPERT_LORA,
  'enable-moe-shared-loras': NO_EXPERT_LORA,
  'specialize-active-lora': 'it is about CUDA graphs, and a step without adapters costs nothing here anyway',
  'default-mm-loras': TEXT_ONLY,
  'enable-tower-connector-lora': TEXT_ONLY,
  'compilation-config': 'nothing is compiled; CUDA graphs are set with --cudagraph-capture-sizes',
  'attention-backend': NO_GPU,
  'cpu-offload-gb': NO_GPU,
  'swap-space': 'preempted requests are computed again, not swapped out',
  'limit-mm-per-prompt': TEXT_ONLY,
  'allowed-local-media-path': TEXT_ONLY,
  'mm-processor-kwargs': TEXT_ONLY,
  'collect-detailed-traces': 'traces have one span a request',
  task: 'it is called --runner and --convert',
  'guided-decoding-backend': 'the backend is chosen with --structured-outputs-config.backend',
  middleware: 'middleware is Python; routes are added with --plugin',
  'worker-cls': 'workers are not replaceable; an executor of a plugin is named by --distributed-executor-backend',
  'logits-processors': 'logits processors are registered by plugins: --plugin',
  'enable-log-outputs': 'answers are never logged',
  'disable-log-requests': 'requests are logged only with --enable-log-requests',
  'enable-offline-docs': 'the documentation at /docs needs no network',
  'h11-max-header-count': 'requests have at most 198 header fields',
  'h11-max-incomplete-event-size': 'the head of a request has at most 16 KiB',
  'uvicorn-log-level': 'one level holds for all parts: --log-level',
  'use-v2-block-manager': 'there is one block manager',
};

/** vLLM's short spellings of them, without the dash. */
const ALIASES: Readonly<Record<string, string>> = {
  ep: 'enable-expert-parallel',
  dpa: 'data-parallel-address',
  dpb: 'data-parallel-backend',
  dpn: 'data-parallel-rank',
  dpl: 'data-parallel-size-local',
  cc: 'compilation-config',
};

/** The flag that a spelling of vLLM's, long or short and without dashes in front, means. */
export function unsupportedName(spelling: string): string {
  return Object.hasOwn(ALIASES, spelling) ? ALIASES[spelling]! : spelling;
}

/** Why Bao refuses a flag of vLLM's (without dashes in front); null for a flag that is not in the list. */
export function unsupportedReason(flag: string): string | null {
  return Object.hasOwn(REASONS, flag) ? REASONS[flag]! : null;
}

/** For the test that none of them is in the table. */
export function unsupportedFlags(): string[] {
  return Object.keys(REASONS);
}
