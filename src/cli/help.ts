import { UsageError } from '../config/config-error.ts';
import { flagChoices, flagDefault, flagUsage } from '../config/flags/describe.ts';
import type { FlagGroup } from '../config/flags/flag.ts';
import { FLAG_GROUPS, FLAGS, type Flag } from '../config/flags/index.ts';
import { closest } from '../config/flags/unknown-flag.ts';

const LEFT_WIDTH = 34;
const MIN_WIDTH = 80;
const MAX_WIDTH = 120;

export const MAIN_HELP = `Bao, an LLM inference server.

Usage: bao COMMAND

Commands
  serve [MODEL] [flags]   Answer the OpenAI API with a model (default: the embedded model demo)
  chat [MODEL] [flags]    Talk with a model, here or at --url
  complete [MODEL] [flags]
                          Let a model go on with a text, here or at --url
  run-batch [flags]       Answer a file of requests
  bench [COMMAND] [flags] Measure this machine, a model, a server
  collect-env             What a report of a problem should say about the machine

  --help, -h              This text; bao COMMAND --help for a command's flags
  --version, -v           The version
`;

const SERVE_HEAD = `Usage: bao serve [MODEL] [flags]

MODEL is a folder, a Hugging Face Hub id, or an embedded model (demo, demo-draft); by default demo.
Values: --flag value, --flag=value, --no-flag; JSON flags also by member: --hf-overrides.rope_theta 1e6.
A flag goes before its environment variable, the variable before the --config file.
`;

/**
 * Help of `bao serve`.
 *
 * @param topic '' or all: every flag; listgroup: the configs; the name of a config or of a flag; else a word that names of flags contain
 * @param columns width of the terminal
 * @throws UsageError with suggestions when nothing has this name
 */
export async function serveHelp(topic: string, columns: number): Promise<string> {
  const width = Math.min(Math.max(columns, MIN_WIDTH), MAX_WIDTH);
  const word = topic.replace(/^-+/, '').replaceAll('_', '-').toLowerCase();
  const groups: readonly FlagGroup[] = Object.values(FLAG_GROUPS);
  if (word === '' || word === 'all') return wholeHelp(groups, width);
  if (word === 'listgroup') return groups.map((group) => entry(group.config, group.doc, width)).join('');

  const group = groups.find(({ config }) => config.toLowerCase() === word);
  if (group !== undefined) return groupHelp(group, FLAGS, width);

  const exact = FLAGS.filter(({ name }) => name === word);
  const found = exact.length > 0 ? exact : FLAGS.filter(({ name }) => name.includes(word));
  if (found.length > 0)
    return groups
      .map((owner) => groupHelp(owner, found, width))
      .filter(Boolean)
      .join('\n');
  throw await unknownTopic(topic, word, groups);
}

function wholeHelp(groups: readonly FlagGroup[], width: number): string {
  const options = [
    'Options\n',
    entry(
      '--help[=NAME], -h',
      'This text, or only a config (SchedulerConfig), a flag (max-model-len), flags with a word in their names, or listgroup.',
      width,
    ),
    entry('--config FILE', 'YAML file of flags: names, with dashes or underscores, to values.', width),
  ].join('');
  return [SERVE_HEAD, options, ...groups.map((group) => groupHelp(group, FLAGS, width))].join('\n');
}

/** A group's heading and those of the flags that are its own; '' if none is. */
export function groupHelp(group: FlagGroup, flags: readonly Flag[], width: number): string {
  const own = flags.filter((flag) => flag.group === group);
  if (own.length === 0) return '';
  return `${group.config}: ${group.doc}\n${own.map((flag) => entry(flagUsage(flag), describe(flag), width)).join('')}`;
}

function describe({ spec }: Flag): string {
  const notes: string[] = [];
  const choices = flagChoices(spec);
  if (choices !== null && choices.length > 3) notes.push(`one of ${choices.join(', ')}`);
  const value = flagDefault(spec);
  if (value !== null) notes.push(`default: ${value}`);
  if (spec.env !== undefined) notes.push(`env: ${spec.env}`);
  return notes.length === 0 ? spec.help : `${spec.help} (${notes.join('; ')})`;
}

/** Two aligned columns; a left side that is too long has a line of its own. */
function entry(left: string, text: string, width: number): string {
  const indent = ' '.repeat(LEFT_WIDTH);
  const lines = wrap(text, width - LEFT_WIDTH);
  const head = `  ${left}`;
  if (head.length > LEFT_WIDTH - 2) return `${head}\n${lines.map((line) => `${indent}${line}\n`).join('')}`;
  return lines.map((line, index) => `${index === 0 ? head.padEnd(LEFT_WIDTH) : indent}${line}\n`).join('');
}

function wrap(text: string, width: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1)!;
    if (line === '') lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines;
}

async function unknownTopic(topic: string, word: string, groups: readonly FlagGroup[]): Promise<UsageError> {
  const byName = new Map([
    ...groups.map(({ config }) => [config.toLowerCase(), config] as const),
    ...FLAGS.map(({ name }) => [name, name] as const),
  ]);
  const alike = (await closest(word, [...byName.keys()])).map((name) => `--help=${byName.get(name)}`);
  return new UsageError(
    alike.length > 0
      ? `No flag or config is named "${topic}": did you mean ${alike.join(' or ')}?`
      : `No flag or config is named "${topic}"; --help=listgroup lists the configs.`,
  );
}
