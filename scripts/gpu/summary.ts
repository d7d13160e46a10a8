import type { KernelsFigures } from '../../bench/commands/kernels.ts';
import type { Machine } from '../../bench/machine.ts';
import type { StageResult } from './run-stage.ts';

/** results.json of gpu-verify. */
export interface VerifyResults {
  date: string;
  device: string;
  machine: Machine;
  /** By stage. */
  stages: Record<string, StageResult>;
}

type Numbers = Record<string, number>;

/** What a terminal that keeps the end of a program's output is sure to keep. */
const MAX_CHARACTERS = 11_000;

const share = (value: number, limit: number) => (limit > 0 ? ` (${(value / limit).toFixed(2)})` : '');
const fixed = (value: number | undefined) => (value === undefined ? '' : value.toFixed(value < 10 ? 2 : 0));

/** A benchmark's figures as cells: decode and prefill, each beside the limit of the same run. */
function latencyCells(f: Numbers): string[] {
  if (f.decode_read_gbps === undefined) return [fixed(f.decode_tokens_per_s), '', fixed(f.prefill_tokens_per_s), ''];
  return [
    fixed(f.decode_tokens_per_s),
    `${fixed(f.decode_read_gbps)} of ${fixed(f.limit_read_gbps)} GB/s${share(f.decode_read_gbps, f.limit_read_gbps!)}`,
    fixed(f.prefill_tokens_per_s),
    `${fixed(f.prefill_gflops! / 1000)} of ${fixed(f.limit_gflops! / 1000)} TFLOP/s${share(f.prefill_gflops!, f.limit_gflops!)}`,
  ];
}

/** A line for each op on each shape. */
function kernelRows(stage: string, { kernels, limit_read_gbps, limit_gflops }: KernelsFigures): string[][] {
  return kernels.map((kernel) => [
    stage,
    kernel.op,
    kernel.shape,
    kernel.microseconds.toFixed(1),
    `${fixed(kernel.gbps)}${share(kernel.gbps, limit_read_gbps)}`,
    `${fixed(kernel.gflops / 1000)}${share(kernel.gflops, limit_gflops)}`,
  ]);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** What happened and what was measured, as Markdown of at most 12,000 characters: where it would be more, less is said of what went wrong. */
export function summaryOf(results: VerifyResults): string {
  for (const noteCharacters of [160, 80, 40]) {
    const text = summaryWith(results, noteCharacters);
    if (text.length <= MAX_CHARACTERS) return text;
  }
  return `${summaryWith(results, 0).slice(0, MAX_CHARACTERS)}\n… results.json has the rest.\n`;
}

function summaryWith({ date, device, machine, stages }: VerifyResults, noteCharacters: number): string {
  const entries = Object.entries(stages);
  const outcomes = entries.map(([name, stage]) => {
    const notes = stage.commands
      .filter(({ outcome }) => outcome !== 'ok')
      .map((each) => {
        const last = each.tail.trim().split('\n').at(-1) ?? '';
        const command = each.command.replaceAll(/\s+/g, ' ').slice(0, noteCharacters / 2);
        return `${each.outcome}: ${command}: ${last.slice(0, noteCharacters)}`;
      });
    return [name, stage.outcome, `${stage.seconds.toFixed(1)} s`, notes.join('; ').replaceAll('|', '/')];
  });
  const measured = (match: RegExp) =>
    entries
      .filter(([name]) => match.test(name))
      .flatMap(([name, { figures }]) =>
        Object.entries(figures).map(([key, value]) => [name, key, value as Numbers] as const),
      );
  const latency = measured(/^(latency|peers)-/).map(([name, key, f]) => [name, key, ...latencyCells(f)]);
  const throughput = measured(/^throughput-/).map(([name, , f]) => [
    name,
    fixed(f.requests_per_second),
    fixed(f.tokens_per_second),
    fixed(f.output_tokens_per_second),
  ]);
  const startup = measured(/^serve-/).map(([name, , f]) => [name, fixed(f.ready_ms), fixed(f.first_token_ms)]);
  const kernels = measured(/^kernels-/).flatMap(([name, , f]) => kernelRows(name, f as unknown as KernelsFigures));
  const limits = measured(/^limits$/).map(
    ([, , f]) => `${fixed(f.read_gbps)} GB/s read, ${fixed(f.gflops! / 1000)} TFLOP/s by cuBLAS`,
  );
  const emulated = device === 'cuda' ? '' : '\nThe emulation ran: figures say nothing about any device.\n';
  return [
    `# gpu-verify, ${date}`,
    `${device}; ${machine.cpu}, ${machine.threads} threads, Bun ${machine.bun}${limits.length > 0 ? `; ${limits[0]}` : ''}\n${emulated}`,
    table(['stage', 'outcome', 'time', 'what went wrong'], outcomes),
    ...(latency.length > 0
      ? ['', table(['stage', 'batch', 'decode tok/s', 'read', 'prefill tok/s', 'computed'], latency)]
      : []),
    ...(kernels.length > 0 ? ['', table(['stage', 'op', 'shape', 'us', 'GB/s', 'TFLOP/s'], kernels)] : []),
    ...(throughput.length > 0 ? ['', table(['stage', 'requests/s', 'tokens/s', 'output tokens/s'], throughput)] : []),
    ...(startup.length > 0 ? ['', table(['stage', 'ready, ms', 'first token, ms'], startup)] : []),
    '',
  ].join('\n');
}
