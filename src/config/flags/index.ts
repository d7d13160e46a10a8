import { cacheFlags } from './cache.ts';
import { compilationFlags } from './compilation.ts';
import { deviceFlags } from './device.ts';
import type { FlagGroup, FlagSpec, FlagValuesOf } from './flag.ts';
import { fieldName } from './flag.ts';
import { frontendFlags } from './frontend.ts';
import { loadFlags } from './load.ts';
import { loraFlags } from './lora.ts';
import { modelFlags } from './model.ts';
import { loggingFlags, observabilityFlags } from './observability.ts';
import { parallelFlags } from './parallel.ts';
import { pluginFlags } from './plugins.ts';
import { schedulerFlags } from './scheduler.ts';
import { speculativeFlags } from './speculative.ts';
import { structuredOutputsFlags } from './structured-outputs.ts';

/**
 * The flag table. Everything about a flag comes from its one row: parsing of command line, config file and environment,
 * `--help`, docs/flags.md, the type of EngineArgs and, for values that need no resolving, of BaoConfig.
 */
export const FLAG_GROUPS = {
  model: { config: 'ModelConfig', key: 'model', doc: 'The model and its limits.', flags: modelFlags },
  load: { config: 'LoadConfig', key: 'load', doc: 'How weights get here.', flags: loadFlags },
  cache: { config: 'CacheConfig', key: 'cache', doc: 'The KV cache.', flags: cacheFlags },
  parallel: { config: 'ParallelConfig', key: 'parallel', doc: 'Work over several cores.', flags: parallelFlags },
  scheduler: { config: 'SchedulerConfig', key: 'scheduler', doc: 'What goes into a step.', flags: schedulerFlags },
  structuredOutputs: {
    config: 'StructuredOutputsConfig',
    key: 'structuredOutputs',
    doc: 'Output that follows a schema or a grammar.',
    flags: structuredOutputsFlags,
  },
  lora: { config: 'LoRAConfig', key: 'lora', doc: 'Adapters.', flags: loraFlags },
  speculative: {
    config: 'SpeculativeConfig',
    key: 'speculative',
    doc: 'Drafts that the model verifies.',
    flags: speculativeFlags,
  },
  device: { config: 'DeviceConfig', key: 'device', doc: 'The device.', flags: deviceFlags },
  compilation: {
    config: 'CompilationConfig',
    key: 'compilation',
    doc: 'CUDA graphs.',
    flags: compilationFlags,
  },
  frontend: { config: 'Frontend', key: 'frontend', doc: 'The HTTP server.', flags: frontendFlags },
  observability: {
    config: 'ObservabilityConfig',
    key: 'observability',
    doc: 'Statistics.',
    flags: observabilityFlags,
  },
  logging: { config: 'LoggingConfig', key: 'logging', doc: 'The log.', flags: loggingFlags },
  plugins: { config: 'PluginConfig', key: 'plugins', doc: 'Extensions.', flags: pluginFlags },
} as const satisfies Record<string, FlagGroup>;

export type GroupKey = keyof typeof FLAG_GROUPS;

/** Field to value for the flags of one config, before anything is resolved. */
export type GroupValues<Key extends GroupKey> = FlagValuesOf<(typeof FLAG_GROUPS)[Key]['flags']>;

type Intersection<Union> = (Union extends unknown ? (member: Union) => void : never) extends (all: infer All) => void
  ? All
  : never;

/** Field to value for all flags: flat, as in vLLM's EngineArgs. */
export type FlagValues = Intersection<{ [Key in GroupKey]: GroupValues<Key> }[GroupKey]>;

export interface Flag<Field extends string = string> {
  /** "max-num-seqs" */
  readonly name: string;
  /** "maxNumSeqs" */
  readonly field: Field;
  readonly group: FlagGroup;
  readonly spec: FlagSpec;
}

/** The rows of groups, in the tables' order. */
export function flagsOf(groups: readonly FlagGroup[]): Flag[] {
  return groups.flatMap((group) =>
    Object.entries(group.flags).map(([name, spec]) => ({ name, field: fieldName(name), group, spec })),
  );
}

/** The flags that one command line takes, found by their spellings. */
export class FlagSet {
  readonly names: readonly string[];
  private readonly rows: ReadonlyMap<string, Flag>;
  private readonly aliases: ReadonlyMap<string, Flag>;

  /** Where two flags have one name, the later one counts. */
  constructor(flags: readonly Flag[]) {
    this.rows = new Map(flags.map((flag) => [flag.name, flag]));
    this.names = [...this.rows.keys()];
    this.aliases = new Map(flags.flatMap((flag) => (flag.spec.aliases ?? []).map((alias) => [alias, flag] as const)));
  }

  /** The flag of a name without dashes in front; underscores count as dashes. */
  byName(name: string): Flag | undefined {
    const dashed = name.replaceAll('_', '-');
    return this.rows.get(dashed) ?? this.aliases.get(`--${dashed}`);
  }

  /** The flag of a short spelling: `-dp`. */
  byAlias(alias: string): Flag | undefined {
    return this.aliases.get(alias);
  }
}

/** Every row, in the table's order. */
export const FLAGS = flagsOf(Object.values(FLAG_GROUPS)) as readonly Flag<keyof FlagValues>[];

/** The flags of `bao serve`. */
export const SERVE_FLAGS = new FlagSet(FLAGS);

/** The flag of `bao serve` of a name without dashes in front; underscores count as dashes. */
export function flagByName(name: string): Flag<keyof FlagValues> | undefined {
  return SERVE_FLAGS.byName(name) as Flag<keyof FlagValues> | undefined;
}

/** Every flag at its default. */
export function defaultFlagValues(): FlagValues {
  return structuredClone(Object.fromEntries(FLAGS.map(({ field, spec }) => [field, spec.default]))) as FlagValues;
}
