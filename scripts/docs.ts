/** Writes docs/flags.md from the flag table, and the table of docs/api.md from a running server. */
import { resolve } from 'node:path';
import { ENGINE_VARIABLES } from '../src/config/engine-variables.ts';
import { flagChoices, flagDefault, flagUsage } from '../src/config/flags/describe.ts';
import type { FlagGroup } from '../src/config/flags/flag.ts';
import { FLAG_GROUPS, FLAGS, type Flag } from '../src/config/flags/index.ts';

export const FLAGS_PAGE = resolve(import.meta.dir, '../docs/flags.md');

const INTRODUCTION = `<!-- Made by \`bun run docs\` from src/config/flags; edit the table there. -->

# Flags of \`bao serve\`

Names and defaults are vLLM's where vLLM has the flag. A flag is written \`--flag value\` or \`--flag=value\`, a boolean \`--flag\` or \`--no-flag\`;
lists take several words or the flag several times; JSON flags take an object, or one member each: \`--hf-overrides.rope_theta 1e6\`, and \`--hf-overrides.architectures+ Name\` to append to a list.
\`--config FILE\` names a YAML file that maps flag names to values, \`no-\` and members of JSON flags as on the command line. The command line goes before environment variables, these before the file, the file before defaults.

Sizes and numbers of tokens take \`k\`, \`m\`, \`g\`, \`t\` (powers of 1000) and \`K\`, \`M\`, \`G\`, \`T\` (powers of 1024); sizes also \`KiB\`, \`MiB\`, \`GiB\`, \`MB\`, \`GB\`.
`;

/** docs/flags.md as the table would have it. */
export function flagsPage(): string {
  return `${[INTRODUCTION, ...Object.values(FLAG_GROUPS).map(groupSection), variablesSection()].join('\n')}`;
}

function variablesSection(): string {
  const rows = Object.entries(ENGINE_VARIABLES).map(
    ([name, { default: value, help }]) => `| \`${name}\` | ${value === null ? '' : `\`${value}\``} | ${help} |`,
  );
  return `## Environment\n\nWhat no flag sets.\n\n| variable | default | |\n| --- | --- | --- |\n${rows.join('\n')}\n`;
}

function groupSection(group: FlagGroup): string {
  const rows = FLAGS.filter((flag) => flag.group === group).map(row);
  return `## ${group.config}\n\n${group.doc}\n\n| flag | default | |\n| --- | --- | --- |\n${rows.join('\n')}\n`;
}

function row(flag: Flag): string {
  const { spec } = flag;
  const choices = flagChoices(spec);
  const notes = [
    spec.help,
    ...(choices !== null && choices.length > 3 ? [`One of ${choices.map((word) => `\`${word}\``).join(', ')}.`] : []),
    ...(spec.env === undefined ? [] : [`Environment: \`${spec.env}\`.`]),
  ];
  const value = flagDefault(spec);
  return `| \`${cell(flagUsage(flag))}\` | ${value === null ? '' : `\`${cell(value)}\``} | ${cell(notes.join(' '))} |`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

if (import.meta.main) {
  await Bun.write(FLAGS_PAGE, flagsPage());
  const { API_PAGE, apiTable, withTable } = await import('./api-table/api-table.ts');
  await Bun.write(API_PAGE, withTable(await Bun.file(API_PAGE).text(), await apiTable()));
}
