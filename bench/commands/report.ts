import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../../src/config/config-error.ts';
import { defineCommand } from '../command.ts';
import { type AnyResult, drawCharts } from '../report/charts.ts';

/** Draws the results of a folder into another; gives the files written. Throws ConfigError where there is nothing to draw. */
export async function writeReport(resultsFolder: string, outputFolder: string): Promise<string[]> {
  if (!existsSync(resultsFolder))
    throw new ConfigError(`${resultsFolder} does not exist; --output-json writes results there.`);
  const files = readdirSync(resultsFolder).filter((name) => name.endsWith('.json'));
  const results = await Promise.all(files.map((name) => readResult(join(resultsFolder, name))));
  const charts = drawCharts(results);
  if (charts.size === 0) throw new ConfigError(`${resultsFolder} has no result that could be drawn.`);
  mkdirSync(outputFolder, { recursive: true });
  return Promise.all(
    [...charts].map(async ([name, svg]) => {
      const path = join(outputFolder, name);
      await Bun.write(path, svg);
      return path;
    }),
  );
}

async function readResult(path: string): Promise<AnyResult> {
  try {
    return await Bun.file(path).json();
  } catch (error) {
    throw new ConfigError(`${path} is no JSON: ${(error as Error).message}`);
  }
}

export const report = defineCommand({
  name: 'report',
  doc: 'Charts of the results, as SVG.',
  flags: {
    'result-dir': { type: 'string', default: 'bench/results', metavar: 'FOLDER', help: 'Where the results are.' },
    'output-dir': { type: 'string', default: 'docs/images/bench', metavar: 'FOLDER', help: 'Where the charts go.' },
  },
  takesEngineFlags: false,
  async run(values) {
    for (const path of await writeReport(values.resultDir, values.outputDir)) process.stdout.write(`${path}\n`);
  },
});
