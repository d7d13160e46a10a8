import { afterAll, expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { QueueFullError } from '../../src/errors/queue-full-error.ts';
import type { GrammarSpec } from '../../src/sampling/structured-outputs-params.ts';
import { GrammarTrials, type TrialLimits } from '../../src/structured-output/trial/grammar-trials.ts';
import { endlessGrammars } from '../fixtures/endless-grammars.ts';

const { model } = await new EngineArgs({ model: 'demo' }).createEngineConfig();
const { tokenizerFolder, eosTokenIds, hf } = model;
const opened: GrammarTrials[] = [];
afterAll(() => {
  for (const trials of opened) trials.close();
});

function trialsWith(limits?: TrialLimits): GrammarTrials {
  const trials = new GrammarTrials({ tokenizerFolder, eosTokenIds, hf: { vocabSize: hf.vocabSize } }, limits);
  opened.push(trials);
  return trials;
}

/** Those of this process. */
function trialProcesses(): number[] {
  const isOurs = (pid: string) => {
    try {
      const parent = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
      return Number(parent) === process.pid && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('grammar-trials');
    } catch {
      // It has just ended.
      return false;
    }
  };
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && isOurs(name))
    .map(Number);
}

const ENDLESS = endlessGrammars();
const regex = (text: string): GrammarSpec => ({ kind: 'regex', text });

test('what compiles passes, what is wrong is told in the words of the engine', async () => {
  const trials = trialsWith();
  expect(await trials.try(regex('[a-z]+'))).toBeNull();
  expect(await trials.try(regex('['))).toContain('unclosed character class');
  expect(await trials.try(regex('[a-z]+'))).toBeNull();
});

test.each(Object.entries(ENDLESS))('%s: given up, and its process with it', async (_, spec) => {
  const trials = trialsWith({ maxProcesses: 1, deadlineMs: 400, fairMs: 400, waitMs: 400 });
  expect(await trials.try(spec)).toMatch(/was not compiled within|needs more than 256 MiB/);
  expect(await trials.try(regex('a+'))).toBeNull();
});

// Children are found in /proc.
test.if(process.platform === 'linux')('a process that gets no processor is not given up', async () => {
  const trials = trialsWith({ maxProcesses: 1, deadlineMs: 100, fairMs: 100, waitMs: 60_000 });
  const before = trialProcesses();
  expect(await trials.try(regex('a+'))).toBeNull();
  const [pid] = trialProcesses().filter((each) => !before.includes(each));
  process.kill(pid!, 'SIGSTOP');
  const answer = trials.try(regex('b+'));
  await Bun.sleep(200);
  process.kill(pid!, 'SIGCONT');
  expect(await answer).toBeNull();
});

test('those that take long make way for one that waits', async () => {
  const trials = trialsWith({ maxProcesses: 2, deadlineMs: 60_000, fairMs: 100, waitMs: 60_000 });
  const slow = Object.values(ENDLESS).slice(0, 2);
  const given = Promise.all(slow.map((spec) => trials.try(spec)));
  expect(await trials.try(regex('quick'))).toBeNull();
  trials.close();
  for (const message of await given) expect(message).toMatch(/was not compiled within|needs more than|has not started/);
});

test('one that waits for too long is to come again', async () => {
  const trials = trialsWith({ maxProcesses: 1, deadlineMs: 200, fairMs: 60_000, waitMs: 200 });
  const given = trials.try(Object.values(ENDLESS)[0]!);
  // Its process still reads the vocabulary, which the deadline does not count.
  expect(trials.try(regex('late'))).rejects.toBeInstanceOf(QueueFullError);
  expect(await given).toMatch(/was not compiled within/);
});
