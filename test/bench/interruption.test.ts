import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { interruptible } from '../../bench/interruption.ts';

const MODULE = join(import.meta.dir, '../../bench/interruption.ts');

/** What an action in a process of its own says, and what ends the process. `told` gives the signal to itself. */
async function run(action: string): Promise<{ said: string; ended: string | number | null }> {
  const script = `
    import { interruptible } from ${JSON.stringify(MODULE)};
    const told = (name) => process.kill(process.pid, name);
    const say = (text) => process.stdout.write(text + ' ');
    await interruptible(async (signal) => {
      const aborted = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      ${action}
    });
    say('goes on');
  `;
  const child = Bun.spawn([process.execPath, '-e', script], { stdout: 'pipe', stderr: 'ignore' });
  const said = await new Response(child.stdout).text();
  await child.exited;
  return { said: said.trim(), ended: child.signalCode ?? child.exitCode };
}

describe.skipIf(process.platform === 'win32')('a process that is told to end', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'])('cleans up, and ends by %s', async (name) => {
    const cleaning = `try { told('${name}'); await aborted } catch (e) { say(e.message); await Bun.sleep(1); say('clean'); throw e }`;
    expect(await run(cleaning)).toEqual({ said: `Interrupted by ${name}. clean`, ended: name });
  });

  test('ends at once when it is told again', async () => {
    const hanging = "try { told('SIGTERM'); await aborted } catch { told('SIGINT'); await Bun.sleep(600_000) }";
    expect(await run(hanging)).toEqual({ said: '', ended: 'SIGINT' });
  });

  test('after the action ends as ever', async () => {
    expect(await run("say('done')")).toEqual({ said: 'done goes on', ended: 0 });
    expect(await interruptible(async () => 5)).toBe(5);
    expect(process.listenerCount('SIGHUP')).toBe(0);
  });
});
