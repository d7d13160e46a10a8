import { availableParallelism } from 'node:os';
import { configWarnings } from '../config/checks.ts';
import { EngineArgs } from '../config/engine-args.ts';
import { environmentWarnings } from '../config/environment.ts';
import { describeNonDefaultArgs } from '../config/non-default-args.ts';
import { configureLogging, logger } from '../logging/logger.ts';
import { VERSION } from '../version.ts';
import { parseServeArgs } from './parse-args.ts';
import { setProcessTitle } from './process-title.ts';

const log = logger('serve');

/** `bao serve`; ends the process when the server has stopped. Throws ConfigError before any weight is read, and what `runServer` throws. */
export async function serve(argv: readonly string[]): Promise<void> {
  const args = await parseServeArgs(argv);
  if (args.help !== null) {
    const { serveHelp } = await import('./help.ts');
    process.stdout.write(await serveHelp(args.help, process.stdout.columns ?? 0));
    return;
  }

  const engineArgs = await EngineArgs.fromCliArgs(args);
  const { servedModelName, model, logLevel, logFormat, apiKey, hfToken } = engineArgs.values;
  setProcessTitle(`bao ${servedModelName[0] ?? model}`);
  const secrets = hfToken === null ? apiKey : [...apiKey, hfToken];
  configureLogging({ level: logLevel, format: logFormat, secrets });
  const nonDefault = describeNonDefaultArgs(engineArgs.values);
  log.info(`Bao ${VERSION}${nonDefault === '' ? '' : `, flags:\n${nonDefault}`}`);
  for (const warning of await environmentWarnings(process.env)) log.warn(warning);

  const config = await engineArgs.createEngineConfig();
  for (const warning of configWarnings(config, availableParallelism())) log.warn(warning);

  const { runServer } = await import('../server/process/run-server.ts');
  // Not left to the event loop: a core that hangs would keep the process.
  process.exit(await runServer(config));
}
