import type { FlagTable } from './flag.ts';

export const pluginFlags = {
  plugin: {
    type: 'list',
    default: [],
    metavar: 'MODULE',
    help: 'Modules (a path or a package) to load in every core and API thread, beside installed packages with the keyword bao-plugin.',
  },
} as const satisfies FlagTable;
