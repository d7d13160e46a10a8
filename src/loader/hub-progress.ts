import { logger } from '../logging/logger.ts';

const log = logger('hub');

/** Shows how a download comes along. */
export interface DownloadProgress {
  advance(bytes: number): void;
  stop(): void;
}

/** A bar when a person is watching, else a log line at the start and at the end. */
export async function showProgress(model: string, numFiles: number, totalBytes: number): Promise<DownloadProgress> {
  log.info(`Downloading ${model}: ${numFiles} files, ${formatBytes(totalBytes)}`);
  return process.stderr.isTTY ? showBar(totalBytes) : logAtEnd(model);
}

async function showBar(totalBytes: number): Promise<DownloadProgress> {
  const { default: progress } = await import('cli-progress');
  const bar = new progress.SingleBar(
    {
      format: '{bar} {percentage}% | {done} of {size} | {rate}/s | {eta_formatted} left',
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
    },
    progress.Presets.shades_classic,
  );
  const size = formatBytes(totalBytes);
  const started = performance.now();
  bar.start(totalBytes, 0, { done: formatBytes(0), size, rate: formatBytes(0) });
  let done = 0;
  return {
    advance(bytes) {
      done += bytes;
      const seconds = (performance.now() - started) / 1000;
      bar.update(done, { done: formatBytes(done), rate: formatBytes(Math.max(0, done / seconds)) });
    },
    stop: () => bar.stop(),
  };
}

function logAtEnd(model: string): DownloadProgress {
  const started = performance.now();
  let done = 0;
  return {
    advance(bytes) {
      done += bytes;
    },
    stop() {
      log.info(`${model}: ${formatBytes(done)} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
    },
  };
}

/** "1.5 GB", in powers of ten as disks are sold. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
