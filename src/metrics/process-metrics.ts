import { readdirSync, readFileSync } from 'node:fs';
import { Counter, Gauge, type Registry } from 'prom-client';

/** Metrics of the process under the names that Prometheus' clients share. What a platform does not tell is left out. Threads report the same process: merging takes the maximum. */
export function defineProcessMetrics(registry: Registry): void {
  const gauge = (name: string, help: string, read: () => number | null) => {
    if (read() === null) return;
    new Gauge({
      name,
      help,
      aggregator: 'max',
      registers: [registry],
      collect() {
        const value = read();
        if (value !== null) this.set(value);
      },
    });
  };
  gauge('process_virtual_memory_bytes', 'Virtual memory.', () => statusBytes('VmSize'));
  gauge('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss());
  gauge('process_open_fds', 'Open file descriptors.', openFileDescriptors);
  gauge('process_max_fds', 'Most file descriptors that may be open.', maxFileDescriptors);
  const startSeconds = Date.now() / 1000 - process.uptime();
  gauge('process_start_time_seconds', 'Start of the process, seconds since the epoch.', () => startSeconds);
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'Processor time, user and system.',
    aggregator: 'max',
    registers: [registry],
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
}

/** A file of Linux's /proc; null elsewhere. */
function readProc(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function statusBytes(field: string): number | null {
  const match = readProc('/proc/self/status')?.match(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm'));
  return match ? Number(match[1]) * 1024 : null;
}

function openFileDescriptors(): number | null {
  try {
    // The listing itself has one open.
    return readdirSync('/proc/self/fd').length - 1;
  } catch {
    return null;
  }
}

function maxFileDescriptors(): number | null {
  const match = readProc('/proc/self/limits')?.match(/^Max open files\s+(\d+)/m);
  return match ? Number(match[1]) : null;
}
