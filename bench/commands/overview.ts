import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { writeResult } from '../results.ts';
import { frontendTable, measureFrontend } from './frontend.ts';
import { latencyTable, measureLatency } from './latency.ts';
import { measureScheduler, schedulerTable } from './scheduler.ts';
import { measureStartup, startupTable } from './startup.ts';

const SHAPE = 'bench/shapes/0.5b';

const heading = (text: string) => process.stdout.write(`\n== ${text}\n`);

export const overview = defineCommand({
  name: 'overview',
  doc: 'A few minutes of everything: startup, one and sixteen sequences of the 0.5b shape, front end, scheduler.',
  flags: OUTPUT_JSON,
  takesEngineFlags: false,
  async run(values, engine) {
    heading('Startup, demo model');
    const startup = await measureStartup([], 'demo', 3);
    process.stdout.write(startupTable(startup));

    const latency = [];
    for (const batchSize of [1, 16]) {
      heading(`Latency, batch ${batchSize}`);
      const given = { ...engine, model: SHAPE, loadFormat: 'dummy' } as const;
      const shape = { batchSize, inputLen: 32, outputLen: 24 };
      const figures = await measureLatency(given, shape, { warmup: 1, measured: 2 });
      process.stdout.write(latencyTable(figures));
      latency.push(figures);
    }

    heading('Front end');
    const load = { model: 'demo', concurrency: 64, outputLen: 128, tokensAtOnce: 1, apiServerCount: 1, rounds: 20 };
    const frontend = await measureFrontend(load);
    process.stdout.write(frontendTable(frontend));

    heading('Scheduler');
    const scheduler = measureScheduler(1000, 128, 500);
    process.stdout.write(schedulerTable(scheduler));
    await writeResult(values.outputJson, 'overview', { startup, latency, frontend, scheduler });
  },
});
