/** The vocabulary of the flag table: what a row may say, and the TypeScript types that follow from it. */

interface FlagBase {
  /** For `--help` and docs/flags.md; starts with a capital, ends with a full stop. */
  readonly help: string;
  /** Other spellings, with their dashes: `-dp`. */
  readonly aliases?: readonly string[];
  /** Environment variable that sets it when neither command line nor config file does. */
  readonly env?: string;
  /** The value's name in help; by default the type's. */
  readonly metavar?: string;
  /** Masked wherever the configuration is shown. */
  readonly secret?: boolean;
}

export interface BooleanFlag extends FlagBase {
  readonly type: 'boolean';
  /** null: decided at start-up. */
  readonly default: boolean | null;
}

export interface NumberFlag extends FlagBase {
  /**
   * int and float: plain numbers. tokens: with vLLM's suffixes, decimal in lower case (32k = 32,000), binary in upper (32K = 32,768).
   * bytes: the same with KiB, MiB, GiB, TiB, kB, KB, MB, GB, TB too.
   */
  readonly type: 'int' | 'float' | 'tokens' | 'bytes';
  readonly default: number | null;
  /** Smallest and largest value, inclusive. */
  readonly min?: number;
  readonly max?: number;
  /** The word `auto` stands for -1. */
  readonly auto?: true;
  /** What a bare number in the environment variable is multiplied with. */
  readonly envUnit?: number;
}

export interface StringFlag extends FlagBase {
  readonly type: 'string';
  readonly default: string | null;
  readonly choices?: readonly string[];
}

/** Words behind one flag, the flag several times, or one JSON array. */
export interface ListFlag extends FlagBase {
  readonly type: 'list';
  readonly default: readonly string[];
  /** A word is split at this character: `--x a,b`. */
  readonly separator?: ',';
}

/** A JSON object, or its members by dotted flags: `--x.key value`. */
export interface JsonFlag extends FlagBase {
  readonly type: 'json';
  readonly default: Readonly<Record<string, unknown>>;
}

export type FlagSpec = BooleanFlag | NumberFlag | StringFlag | ListFlag | JsonFlag;

/** Flag name without dashes in front, as in vLLM, to its row. */
export type FlagTable = Readonly<Record<string, FlagSpec>>;

/** A table with the config that owns it. */
export interface FlagGroup {
  /** vLLM's name of the config ("SchedulerConfig"): heading of `--help` and argument of `--help=SchedulerConfig`. */
  readonly config: string;
  /** Its key in BaoConfig. */
  readonly key: string;
  readonly doc: string;
  readonly flags: FlagTable;
}

/** 'max-num-seqs' → 'maxNumSeqs': the rule by which a flag gives its field. */
export type FieldName<Name extends string> = Name extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<FieldName<Tail>>}`
  : Name;

type OrNull<Spec extends FlagSpec> = Spec['default'] extends null ? null : never;

/** The type of a row's value before anything is resolved. */
export type FlagValue<Spec extends FlagSpec> = Spec extends BooleanFlag
  ? boolean | OrNull<Spec>
  : Spec extends NumberFlag
    ? number | OrNull<Spec>
    : Spec extends StringFlag
      ? (Spec extends { choices: readonly (infer Choice extends string)[] } ? Choice : string) | OrNull<Spec>
      : Spec extends ListFlag
        ? string[]
        : Record<string, unknown>;

/** Field to value of a whole table. */
export type FlagValuesOf<Table extends FlagTable> = {
  -readonly [Name in keyof Table & string as FieldName<Name>]: FlagValue<Table[Name]>;
};

/** The same rule as `FieldName`, at run time. */
export function fieldName(flag: string): string {
  return flag.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}
