import { readFileSync } from 'node:fs';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';

/** Reads a small system file; undefined where it does not exist. */
export type ReadText = (path: string) => string | undefined;

const readText: ReadText = (path) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
};

/** The number in a cgroup file; undefined for an absent one and for "max". */
function limit(text: string | undefined): number | undefined {
  const value = Number.parseInt(text ?? '', 10);
  return Number.isNaN(value) || value < 0 ? undefined : value;
}

/** Folders of this process's cgroup and its parents, for a version 1 controller or (controller '') version 2; innermost first. */
function cgroupFolders(read: ReadText, controller: string): string[] {
  const lines = (read('/proc/self/cgroup') ?? '').split('\n').map((line) => line.split(':'));
  const line = lines.find(([, names]) => names?.split(',').includes(controller));
  const root = join('/sys/fs/cgroup', controller);
  const folders = [];
  for (let path = line?.[2] ?? '/'; ; path = dirname(path)) {
    folders.push(join(root, path));
    if (path === '/' || path === '.') return folders;
  }
}

/** Cores' worth of time that cgroups leave this process; Infinity without a quota. */
function cpuQuota(read: ReadText): number {
  let quota = Number.POSITIVE_INFINITY;
  for (const folder of cgroupFolders(read, '')) {
    const [time, period] = (read(join(folder, 'cpu.max')) ?? 'max').trim().split(' ').map(Number);
    if (time && period) quota = Math.min(quota, time / period);
  }
  for (const folder of cgroupFolders(read, 'cpu')) {
    const time = limit(read(join(folder, 'cpu.cfs_quota_us')));
    const period = limit(read(join(folder, 'cpu.cfs_period_us')));
    if (time && period) quota = Math.min(quota, time / period);
  }
  return quota;
}

/** The numbers in a list like "0-3,8". */
function parseCpuList(list: string): number[] {
  return list.split(',').flatMap((range) => {
    const [first, last] = range.split('-').map(Number);
    return Array.from({ length: (last ?? first!) - first! + 1 }, (_, i) => first! + i);
  });
}

/**
 * Physical cores of this process's affinity mask, each as the processors (hardware threads) of it that the mask has: they share its vector units.
 * null where the system doesn't tell.
 */
export function physicalCores(read: ReadText = readText): number[][] | null {
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(read('/proc/self/status') ?? '');
  if (!allowed) return null;
  const coreOf = (cpu: number) =>
    read(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`)?.trim() ?? String(cpu);
  return [...Map.groupBy(parseCpuList(allowed[1]!), coreOf).values()];
}

/** Compute threads that can run at once: physical cores that this process may use, at most its cgroup's quota rounded up. */
export function availableThreads(read: ReadText = readText): number {
  const cores = physicalCores(read)?.length ?? availableParallelism();
  return Math.max(1, Math.min(cores, Math.ceil(cpuQuota(read))));
}

function meminfoBytes(text: string, field: string): number | undefined {
  const found = new RegExp(`^${field}:\\s*(\\d+) kB$`, 'm').exec(text);
  return found ? Number(found[1]) * 1024 : undefined;
}

interface CgroupMemory {
  limit: number;
  used: number;
}

/** Limits on memory that apply to this process. Page cache that can go at once does not count as used. */
function cgroupMemory(read: ReadText): CgroupMemory[] {
  const found: CgroupMemory[] = [];
  const add = (folder: string, limitFile: string, usageFile: string, cacheField: string) => {
    const max = limit(read(join(folder, limitFile)));
    const usage = limit(read(join(folder, usageFile)));
    if (max === undefined || usage === undefined) return;
    const cache = new RegExp(`^${cacheField} (\\d+)$`, 'm').exec(read(join(folder, 'memory.stat')) ?? '');
    found.push({ limit: max, used: Math.max(0, usage - Number(cache?.[1] ?? 0)) });
  };
  for (const folder of cgroupFolders(read, '')) add(folder, 'memory.max', 'memory.current', 'inactive_file');
  for (const folder of cgroupFolders(read, 'memory')) {
    add(folder, 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file');
  }
  return found;
}

/** Bytes of memory that this process may still take, and all that it could have: the system's, within cgroup limits. */
export function systemMemory(read: ReadText = readText): { freeBytes: number; totalBytes: number } {
  const meminfo = read('/proc/meminfo') ?? '';
  let totalBytes = meminfoBytes(meminfo, 'MemTotal') ?? totalmem();
  let freeBytes = meminfoBytes(meminfo, 'MemAvailable') ?? freemem();
  for (const memory of cgroupMemory(read)) {
    totalBytes = Math.min(totalBytes, memory.limit);
    freeBytes = Math.min(freeBytes, Math.max(0, memory.limit - memory.used));
  }
  return { freeBytes, totalBytes };
}
