import { afterEach, describe, expect, test } from 'bun:test';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ServerProcess } from '../../bench/server-process.ts';
import { processState } from './processes.ts';

const BENCH = join(import.meta.dir, '../../bench');

/** A process that has a child, and says both numbers. */
const WITH_CHILD = ['sh', '-c', 'sleep 600 & echo "started $$ $!"; wait'];

/** T for each that is stopped, R for each that is not; nothing for one that has ended. */
function states(pids: readonly number[]): string {
  const living = pids.map(processState).filter((state) => state !== null);
  return living.map(({ stopped }) => (stopped ? 'T' : 'R')).join('');
}

/** Settles when the processes are in these states. */
async function untilStates(pids: readonly number[], wanted: string): Promise<void> {
  while (states(pids) !== wanted) await Bun.sleep(5);
}

describe.skipIf(process.platform !== 'linux')('a server process', () => {
  const started: number[] = [];
  afterEach(() => {
    for (const pid of started.splice(0)) {
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {}
    }
  });

  async function start(command = WITH_CHILD): Promise<{ server: ServerProcess; pids: number[] }> {
    const server = new ServerProcess(command);
    const [, ...pids] = (await server.logged(/started (\d+) (\d+)/)).map(Number);
    started.push(pids[0]!);
    return { server, pids };
  }

  test('is paused and continued with its children', async () => {
    const { server, pids } = await start();
    expect(states(pids)).toBe('RR');
    server.pause();
    await untilStates(pids, 'TT');
    server.resume();
    await untilStates(pids, 'RR');
    await server.stop();
    await untilStates(pids, '');
  });

  test('is asked to end, with its children, when it is paused', async () => {
    const { server, pids } = await start();
    server.pause();
    await untilStates(pids, 'TT');
    await server.stop();
    await untilStates(pids, '');
    // By SIGTERM, on which a process acts that goes on.
    expect((await server.failureWithin(60_000))?.message).toContain('ended with code 143');
  });

  test('that has ended by itself leaves no children', async () => {
    const { server, pids } = await start(['sh', '-c', 'sleep 600 & echo "started $$ $!"; exit 4']);
    expect((await server.failureWithin(60_000))?.message).toContain('ended with code 4');
    expect(states(pids)).toBe('R');
    server.pause();
    await server.stop();
    await untilStates(pids, '');
  });

  test('has time for what its children do when it has ended', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bao-group-'));
    const file = join(folder, 'given-back');
    // As Python's tracker of shared memory: SIGTERM is not for it.
    const tracker = `trap "" TERM; echo "started $PPID $$"; while kill -0 $PPID; do sleep 0.01; done; echo > ${file}`;
    const { server, pids } = await start(['sh', '-c', `sh -c '${tracker}' & wait`]);
    server.pause();
    await server.stop();
    expect(existsSync(file)).toBe(true);
    await untilStates(pids, '');
    rmSync(folder, { recursive: true });
  });

  test.each(['SIGKILL', 'SIGINT', 'SIGTERM'])(
    'ends with the process that started it, paused or not: %s',
    async (signal) => {
      const script = `
      import { ServerProcess } from ${JSON.stringify(join(BENCH, 'server-process.ts'))};
      const servers = [0, 1].map(() => new ServerProcess(${JSON.stringify(WITH_CHILD)}));
      for (const server of servers) console.log((await server.logged(/started (.*)/))[1]);
      servers[0].pause();
      process.kill(process.pid, '${signal}');
      await Bun.sleep(600_000);
    `;
      const bench = Bun.spawn([process.execPath, '-e', script], { stdout: 'pipe', stderr: 'inherit' });
      const pids = (await new Response(bench.stdout).text()).split(/\s+/).filter(Boolean).map(Number);
      started.push(pids[0]!, pids[2]!);
      expect(pids.length).toBe(4);
      await bench.exited;
      expect(bench.signalCode as string).toBe(signal);
      await untilStates(pids, '');
    },
  );
});
