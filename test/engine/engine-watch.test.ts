import { describe, expect, test } from 'bun:test';
import { CoreStatus } from '../../src/engine/core-status.ts';
import { EngineWatch, type EngineWatchOptions, watchOptionsFromEnv } from '../../src/engine/engine-watch.ts';
import type { CoreHandle } from '../../src/engine/launch-core-engines.ts';

const OPTIONS = { loopTimeoutMs: 1000, progressTimeoutMs: 5000, intervalMs: 1_000_000 };

function watched(options: Partial<EngineWatchOptions> = {}) {
  const status = CoreStatus.create(1);
  const ended = Promise.withResolvers<string | null>();
  const core = {
    coreIndex: 2,
    status,
    ready: { numGpuBlocks: 1, blockSize: 16, maxModelLen: 1, kvCacheBytes: 1, maxConcurrency: 1 },
    ended: ended.promise,
    terminate() {},
  } satisfies CoreHandle;
  const failures: string[] = [];
  const watch = new EngineWatch([core], { ...OPTIONS, ...options }, (reason) => failures.push(reason));
  // Whole milliseconds: sums of them have no rounding, which could put a time above the limit that it is.
  return { status, ended, watch, failures, start: Math.ceil(performance.now()) };
}

describe('engine watch', () => {
  test('a core that loads may take as long as it likes', () => {
    const { status, watch, failures, start } = watched();
    status.state = 'starting';
    for (let t = 0; t < 100; t++) watch.check(start + t * 1000);
    expect(failures).toEqual([]);
  });

  test('an idle core need not do anything but look around once in a while', () => {
    const { status, watch, failures, start } = watched();
    status.state = 'idle';
    for (let t = 0; t <= 60_000; t += 1500) {
      status.countLoopTurn();
      watch.check(start + t);
    }
    expect(failures).toEqual([]);
    for (let t = 60_000; t <= 63_000; t += 500) watch.check(start + t);
    expect(failures).toEqual([expect.stringContaining('core 2 is stuck: its loop has not turned')]);
  });

  test('requests may sleep with their core for ever', () => {
    const { status, watch, failures, start } = watched();
    status.state = 'sleeping';
    status.setLoad(3, 1, 0.5);
    for (let t = 0; t <= 60_000; t += 500) {
      status.countLoopTurn();
      watch.check(start + t);
    }
    expect(failures).toEqual([]);
  });

  test('a process that was stopped for an hour was not hanging', () => {
    const { status, watch, failures, start } = watched({ intervalMs: 200 });
    status.state = 'busy';
    status.setLoad(3, 0, 0);
    watch.check(start + 400);
    watch.check(start + 3_600_000);
    expect(failures).toEqual([]);
    watch.check(start + 3_600_400);
    expect(failures).toHaveLength(1);
  });

  test('so may one whose requests are kept while it is paused', () => {
    const { status, watch, failures, start } = watched();
    status.setLoad(3, 0, 0);
    status.state = 'busy';
    watch.check(start);
    status.state = 'idle';
    for (let t = 0; t < 100; t++) {
      status.countLoopTurn();
      watch.check(start + t * 1000);
    }
    expect(failures).toEqual([]);
    // Awake again, it has its whole time.
    status.state = 'busy';
    watch.check(start + 100_000);
    status.countLoopTurn();
    watch.check(start + 102_000);
    expect(failures).toEqual([]);
  });

  test('a busy loop that does not turn is found, once', () => {
    const { status, watch, failures, start } = watched();
    status.state = 'busy';
    watch.check(start + 900);
    expect(failures).toEqual([]);
    watch.check(start + 2100);
    watch.check(start + 9100);
    expect(failures).toHaveLength(1);
    expect(failures[0]).toContain('core 2 is stuck: its loop has not turned');
  });

  test('a loop that turns while running requests get nothing is found', () => {
    const { status, watch, failures, start } = watched();
    status.state = 'busy';
    status.setLoad(3, 0, 0);
    for (let t = 0; t <= 6000; t += 500) {
      status.countLoopTurn();
      watch.check(start + t);
    }
    expect(failures).toHaveLength(1);
    expect(failures[0]).toContain('makes no progress: 3 running requests');
  });

  test('progress and turns keep it quiet', () => {
    const { status, watch, failures, start } = watched();
    status.state = 'busy';
    status.setLoad(3, 0, 0);
    for (let t = 0; t <= 60_000; t += 500) {
      status.countLoopTurn();
      status.addProgress(1);
      watch.check(start + t);
    }
    expect(failures).toEqual([]);
  });

  test("a core's death is told with its reason, a stop that was asked for is not", async () => {
    const dying = watched();
    dying.watch.start();
    dying.ended.resolve('segmentation fault');
    await dying.ended.promise;
    expect(dying.failures).toEqual(['Engine core 2 died: segmentation fault']);
    const stopping = watched();
    stopping.watch.start();
    stopping.ended.resolve(null);
    await stopping.ended.promise;
    expect(stopping.failures).toEqual([]);
    stopping.watch.stop();
  });

  test('deadlines come from the environment', () => {
    expect(watchOptionsFromEnv({ BAO_ENGINE_STEP_TIMEOUT_S: '2' }).loopTimeoutMs).toBe(2000);
    expect(watchOptionsFromEnv({}).progressTimeoutMs).toBe(300_000);
    for (const text of ['soon', '0', '-1', 'Infinity', '1e9']) {
      expect(() => watchOptionsFromEnv({ BAO_ENGINE_PROGRESS_TIMEOUT_S: text })).toThrow(
        `BAO_ENGINE_PROGRESS_TIMEOUT_S takes a number of seconds above 0, at most 2073600, not "${text}".`,
      );
    }
  });
});
