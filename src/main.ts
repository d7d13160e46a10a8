#!/usr/bin/env bun
import { explainFailure, runCommand } from './cli/run-command.ts';

// Whoever reads the output may have had enough of it: `bao … | head`.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

try {
  await runCommand(process.argv.slice(2));
} catch (error) {
  const { exitCode, text } = explainFailure(error);
  process.stderr.write(`${text}\n`);
  process.exit(exitCode);
}
