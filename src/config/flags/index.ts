import { cacheFlags } from './cache.ts';
import { deviceFlags } from './device.ts';
import type { FlagGroup, FlagSpec, FlagValuesOf } from './flag.ts';
import { fieldName } from './flag.ts';
import { frontendFlags } from './frontend.ts';
import { loadFlags } from './load.ts';
import { modelFlags } from './model.ts';
import { loggingFlags, observabilityFlags } from './observability.ts';
import { parallelFlags } from './parallel.ts';
import { pluginFlags } from './plugins.ts';
import { schedulerFlags } from './scheduler.ts';

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
  device: { config: 'DeviceConfig', key: 'device', doc: 'The device.', flags: deviceFlags },
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

export interface Flag {
  /** "max-num-seqs" */
  readonly name: string;
  /** "maxNumSeqs" */
  readonly field: keyof FlagValues;
  readonly group: FlagGroup;
  readonly spec: FlagSpec;
}

/** Every row, in the table's order. */
export const FLAGS: readonly Flag[] = Object.values(FLAG_GROUPS).flatMap((group: FlagGroup) =>
  Object.entries(group.flags).map(([name, spec]) => ({
    name,
    field: fieldName(name) as keyof FlagValues,
    group,
    spec,
  })),
);

const BY_NAME = new Map(FLAGS.map((flag) => [flag.name, flag]));
const BY_ALIAS = new Map(FLAGS.flatMap((flag) => (flag.spec.aliases ?? []).map((alias) => [alias, flag] as const)));

/** The flag of a name without dashes in front; underscores count as dashes. */
export function flagByName(name: string): Flag | undefined {
  const dashed = name.replaceAll('_', '-');
  return BY_NAME.get(dashed) ?? BY_ALIAS.get(`--${dashed}`);
}

/** The flag of a short spelling: `-dp`. */
export function flagByAlias(alias: string): Flag | undefined {
  return BY_ALIAS.get(alias);
}

/** Every flag at its default. */
export function defaultFlagValues(): FlagValues {
  return structuredClone(Object.fromEntries(FLAGS.map(({ field, spec }) => [field, spec.default]))) as FlagValues;
}
