#!/usr/bin/env bun
import { explainFailure, runCommand } from './cli/run-command.ts';

try {
  await runCommand(process.argv.slice(2));
} catch (error) {
  const { exitCode, text } = explainFailure(error);
  process.stderr.write(`${text}\n`);
  process.exit(exitCode);
}
