/**
 * Binds the threads of a device to the first processor that this process may use, and tells how many threads stay there: before, and bound. In a
 * process of its own, since the calling thread is one of them.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { ensureCpuLibrary } from '../../scripts/build-cpu.ts';
import { createCpuDevice } from '../../src/device/cpu-device.ts';
import { physicalCores } from '../../src/device/cpu-resources.ts';

const libraryPath = await ensureCpuLibrary({ quiet: true, sets: 'runnable' });
const processor = physicalCores()![0]![0]!;

function threadsThere(): number {
  const mask = new RegExp(`^Cpus_allowed_list:\\s*${processor}$`, 'm');
  const tasks = readdirSync('/proc/self/task');
  return tasks.filter((task) => mask.test(readFileSync(`/proc/self/task/${task}/status`, 'utf8'))).length;
}

function refusalOf(processors: number[][]): string {
  try {
    createCpuDevice({ libraryPath, threads: 2, processors }).close();
    return 'none';
  } catch (error) {
    return (error as Error).message;
  }
}

const before = threadsThere();
const device = createCpuDevice({ libraryPath, threads: 2, processors: [[processor], [processor]] });
const bound = threadsThere();
device.close();
console.log(JSON.stringify({ before, bound, refused: refusalOf([[5000]]) }));
