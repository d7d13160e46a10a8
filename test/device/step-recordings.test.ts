import { describe, expect, test } from 'bun:test';
import type { Ops } from '../../src/device/device.ts';
import { OPS, type OpName } from '../../src/device/ops.ts';
import { type Recorder, StepRecordings } from '../../src/device/step-recordings.ts';

type Call = readonly [op: string, ...args: number[]];

/** A device whose ops write down that they were called, and whose recordings are the calls that they enqueue. */
function fakeDevice(maxRecordings: number, canRecord = true) {
  const log: Call[] = [];
  const events: string[] = [];
  const names = Object.keys(OPS) as OpName[];
  const ops = Object.fromEntries(names.map((name) => [name, (...args: number[]) => void log.push([name, ...args])]));
  const recorder: Recorder<Call[]> = {
    record(enqueue, oldest) {
      events.push(oldest === null ? 'record' : `record in place of ${oldest[0]}`);
      const from = log.length;
      enqueue();
      return canRecord ? log.splice(from) : null;
    },
    replay(recording) {
      events.push('replay');
      log.push(...recording);
    },
    discard: (recording) => void events.push(`discard ${recording[0]}`),
  };
  const steps = new StepRecordings(ops as unknown as Ops, recorder, maxRecordings);
  /** What a run of these calls enqueued, and how. */
  const run = (...calls: Call[]) => {
    const result = steps.run(() => {
      for (const [name, ...args] of calls) steps.ops[name as OpName](...args);
      return calls.length;
    });
    expect(result).toBe(calls.length);
    expect(log.splice(0)).toEqual(calls);
    return events.splice(0);
  };
  return { steps, run, log, events };
}

const add = (x: number): Call => ['add', x, 2, 3, 4];
const cap = (value: number): Call => ['soft_cap', 2 ** 47 + 1, 16, value];

describe('recordings of steps', () => {
  test('a step is recorded when it first occurs and replayed when it occurs again', () => {
    const { run } = fakeDevice(4);
    expect(run(add(1), cap(0.5))).toEqual(['record']);
    expect(run(add(1), cap(0.5))).toEqual(['replay']);
  });

  test('a step that differs in an argument, an op or its length is another one', () => {
    const { run } = fakeDevice(8);
    run(add(1), cap(0.5));
    const others = [[add(1), cap(0.25)], [add(1)], [cap(0.5), add(1)], [add(1), cap(0.5), add(1)], []];
    for (const calls of others) expect(run(...calls)).toEqual(['record']);
    for (const calls of others) expect(run(...calls)).toEqual(['replay']);
  });

  test('the one that was used longest ago makes room', () => {
    const { run } = fakeDevice(2);
    expect([1, 2, 1, 3].map((x) => run(add(x))[0])).toEqual([
      'record',
      'record',
      'replay',
      `record in place of ${add(2)}`,
    ]);
    expect([1, 3].map((x) => run(add(x))[0])).toEqual(['replay', 'replay']);
  });

  test('steps of any length are noted', () => {
    const { run } = fakeDevice(2);
    const calls = Array.from({ length: 5000 }, (_, i) => add(i));
    expect(run(...calls)).toEqual(['record']);
    expect(run(...calls)).toEqual(['replay']);
  });

  test('outside of a step ops are called at once, and where nothing is kept in a step too', () => {
    const { steps, log } = fakeDevice(2);
    steps.ops.add(1, 2, 3, 4);
    expect(log.splice(0)).toEqual([add(1)]);
    const none = fakeDevice(0);
    none.steps.run(() => {
      none.steps.ops.add(1, 2, 3, 4);
      expect(none.log).toHaveLength(1);
    });
  });

  test('a step that throws enqueues nothing and leaves nothing behind', () => {
    const { steps, run, log } = fakeDevice(2);
    const failing = () => {
      steps.ops.add(1, 2, 3, 4);
      throw new Error('no batch');
    };
    expect(() => steps.run(failing)).toThrow('no batch');
    expect(log).toEqual([]);
    steps.ops.add(5, 2, 3, 4);
    expect(log.splice(0)).toEqual([add(5)]);
    expect(run(add(1))).toEqual(['record']);
  });

  test('after a recording that can’t be had none is tried, and steps are enqueued call by call', () => {
    const device = fakeDevice(2, false);
    device.steps.run(() => device.steps.ops.add(1, 2, 3, 4));
    expect(device.events.splice(0)).toEqual(['record']);
    device.log.length = 0;
    expect(device.run(add(1))).toEqual([]);
  });

  test('what is cleared is discarded', () => {
    const { steps, run } = fakeDevice(2);
    run(add(1));
    steps.clear();
    expect(run(add(1))).toEqual([`discard ${add(1)}`, 'record']);
  });
});
