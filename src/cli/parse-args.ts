import { UsageError } from '../config/config-error.ts';
import type { ListFlag } from '../config/flags/flag.ts';
import { type Flag, type FlagSet, type FlagValues, SERVE_FLAGS } from '../config/flags/index.ts';
import { unknownFlag } from '../config/flags/unknown-flag.ts';
import {
  expected,
  isJsonObject,
  type JsonObject,
  mergeObjects,
  parseMember,
  parseText,
  parseWords,
  withMember,
} from '../config/parse-value.ts';

/** The command line of `bao serve`, read but not resolved. */
export interface ServeArgs {
  /** Flags that the operator gave, by field. */
  given: Partial<FlagValues>;
  /** `--config`; its flags go behind those given here. */
  configFile: string | null;
  /** null: no help wanted; '' the whole, else what of it. */
  help: string | null;
}

/** A command line, read but not resolved. */
export interface CommandArgs {
  /** Flags that were given, by field. */
  given: Record<string, unknown>;
  positionals: string[];
  configFile: string | null;
  help: string | null;
}

/**
 * Reads `[MODEL] [flags]` of `bao serve`, as {@link parseArgs} does.
 *
 * @throws UsageError
 */
export async function parseServeArgs(argv: readonly string[]): Promise<ServeArgs> {
  const { given, positionals, configFile, help } = await parseArgs(argv, SERVE_FLAGS);
  const [model, ...rest] = positionals;
  if (rest.length > 0) throw new UsageError(`Unexpected argument "${rest[0]}": one model is served, "${model}".`);
  if (model !== undefined) {
    if (given.model !== undefined && given.model !== model) {
      throw new UsageError(`The model is named twice: "${model}" and --model "${given.model}".`);
    }
    given.model = model;
  }
  return { given: given as Partial<FlagValues>, configFile, help };
}

/**
 * Reads words and flags: `--flag value`, `--flag=value`, `--flag` and `--no-flag` for booleans, `--list a b` or `--list a --list b`,
 * `--json '{"a": 1}'`, `--json.a 1` and `--json.a+ 1` (append to a list). Underscores in a flag's name count as dashes. Behind `--` all are words.
 *
 * @throws UsageError
 */
export async function parseArgs(argv: readonly string[], flags: FlagSet): Promise<CommandArgs> {
  const reader = new ArgReader(argv, flags);
  while (!reader.done) await reader.readNext();
  return reader.result();
}

/** One dash or two and a letter; `-1` and `-` are values. */
function looksLikeFlag(word: string): boolean {
  return /^--?[a-z]/i.test(word) || word === '--';
}

interface WrittenFlag {
  /** As the operator wrote it, dashes included, value excluded: for errors. */
  origin: string;
  /** Behind `=`; null without. */
  inline: string | null;
}

class ArgReader {
  private position = 0;
  private configFile: string | null = null;
  private help: string | null = null;
  private readonly positionals: string[] = [];
  private readonly given: Record<string, unknown> = {};

  constructor(
    private readonly argv: readonly string[],
    private readonly flags: FlagSet,
  ) {}

  get done(): boolean {
    return this.position >= this.argv.length;
  }

  async readNext(): Promise<void> {
    const word = this.argv[this.position++]!;
    if (word === '--') {
      this.positionals.push(...this.argv.slice(this.position));
      this.position = this.argv.length;
    } else if (looksLikeFlag(word)) {
      await this.readFlag(word);
    } else {
      this.positionals.push(word);
    }
  }

  result(): CommandArgs {
    return { given: this.given, positionals: this.positionals, configFile: this.configFile, help: this.help };
  }

  private async readFlag(word: string): Promise<void> {
    const equals = word.indexOf('=');
    const origin = equals < 0 ? word : word.slice(0, equals);
    const written: WrittenFlag = { origin, inline: equals < 0 ? null : word.slice(equals + 1) };
    if (!origin.startsWith('--')) return this.readShort(written);

    const [name, ...path] = origin.slice(2).split('.') as [string, ...string[]];
    if (name === 'help') this.help = written.inline ?? '';
    else if (name === 'config') this.configFile = this.takeValue(written, 'a YAML file');
    else await this.readLong(name, path, written);
  }

  private async readShort(written: WrittenFlag): Promise<void> {
    if (written.origin === '-h') {
      this.help = written.inline ?? '';
      return;
    }
    const [alias, ...path] = written.origin.split('.') as [string, ...string[]];
    const flag = this.flags.byAlias(alias);
    if (flag === undefined) throw await unknownFlag(written.origin.slice(1), '', this.flags);
    this.setFlag(flag, path, written);
  }

  private async readLong(name: string, path: string[], written: WrittenFlag): Promise<void> {
    const flag = this.flags.byName(name);
    if (flag !== undefined) return this.setFlag(flag, path, written);
    const positive = /^no[-_]/.test(name) ? this.flags.byName(name.slice(3)) : undefined;
    if (positive === undefined || path.length > 0) throw await unknownFlag(name, '', this.flags);
    if (positive.spec.type !== 'boolean') {
      throw new UsageError(`${written.origin} does not exist: --${positive.name} takes ${expected(positive.spec)}.`);
    }
    if (written.inline !== null) throw new UsageError(`${written.origin} takes no value.`);
    this.given[positive.field] = false;
  }

  private setFlag(flag: Flag, path: string[], written: WrittenFlag): void {
    if (path.length === 0) this.set(flag, written);
    else this.setMember(flag, path, written);
  }

  private set({ spec, field }: Flag, written: WrittenFlag): void {
    if (spec.type === 'boolean') {
      this.given[field] = written.inline === null ? true : parseText(spec, written.inline, written.origin);
    } else if (spec.type === 'list') {
      const before = (this.given[field] as string[] | undefined) ?? [];
      this.given[field] = [...before, ...parseWords(spec, this.takeWords(spec, written))];
    } else {
      const value = parseText(spec, this.takeValue(written, expected(spec)), written.origin);
      const before = this.given[field];
      this.given[field] = isJsonObject(before) && isJsonObject(value) ? mergeObjects(before, value) : value;
    }
  }

  private setMember({ name, spec, field }: Flag, path: string[], written: WrittenFlag): void {
    if (spec.type !== 'json')
      throw new UsageError(`${written.origin}: --${name} has no members; it takes ${expected(spec)}.`);
    const base = (this.given[field] as JsonObject | undefined) ?? {};
    const value = parseMember(this.takeValue(written, 'a value'));
    this.given[field] = withMember(base, path, value, written.origin);
  }

  private takeValue(written: WrittenFlag, what: string): string {
    if (written.inline !== null) return written.inline;
    const next = this.argv[this.position];
    if (next === undefined || looksLikeFlag(next)) throw new UsageError(`${written.origin} needs a value: ${what}.`);
    this.position++;
    return next;
  }

  private takeWords(spec: ListFlag, written: WrittenFlag): string[] {
    if (written.inline !== null) return [written.inline];
    const words = [this.takeValue(written, expected(spec))];
    while (!this.done && !looksLikeFlag(this.argv[this.position]!)) words.push(this.argv[this.position++]!);
    return words;
  }
}
