import { formatTable, shortNumber } from '../table.ts';
import { type FailedRow, isMeasured, type PeerOutcome, type PeersFigures, rowTitle } from './figures.ts';

/**
 * Tokens a second, a column for each engine; then how many times that of the others the first engine reaches, and its share of the machine's limit. Below
 * stands why engines failed.
 */
export function peersTable({ versions, ready_s, rows }: PeersFigures): string {
  const [first, ...others] = Object.keys(versions);
  const head = [
    'tokens/s',
    ...Object.entries(versions).map(([name, version]) => `${name} ${version}`),
    ...others.map((name) => `${first} : ${name}`),
    `${first} of limit`,
  ];
  const loads = [...Map.groupBy(rows, rowTitle)].map(([title, load]) => {
    const [own, ...rates] = load.map((row) => (isMeasured(row) ? row.tokens_per_s : null));
    const limit = load[0]!.limit_tokens_per_s;
    return [
      title,
      ...[own!, ...rates].map(figure),
      ...rates.map((rate) => ratio(own!, rate)),
      limit === null || own === null ? '' : `${ratio(own!, limit)} of ${shortNumber(limit)}`,
    ];
  });
  const [ownReady, ...ready] = Object.keys(versions).map((name) => ready_s[name] ?? null);
  loads.push([
    'command to ready, s',
    ...[ownReady!, ...ready].map(figure),
    ...ready.map((seconds) => ratio(seconds, ownReady!)),
    '',
  ]);
  return formatTable(head, loads) + failures(rows);
}

/** The rows of one load in a line, and why engines failed. */
export function loadSummary(rows: readonly PeerOutcome[]): string {
  const rates = rows.map((row) =>
    isMeasured(row) ? `${row.peer} ${shortNumber(row.tokens_per_s)} tok/s` : `${row.peer} failed`,
  );
  return `${rowTitle(rows[0]!)}: ${rates.join(', ')}\n${failures(rows)}`;
}

/** Each error once, with the loads that it came in. */
function failures(rows: readonly PeerOutcome[]): string {
  const failed = rows.filter((row): row is FailedRow => !isMeasured(row));
  const byError = Map.groupBy(failed, ({ peer, error }) => `${peer}: ${error}`);
  return [...byError].map(([error, same]) => `${same.map(rowTitle).join('; ')}: ${error}\n`).join('');
}

function figure(value: number | null): string {
  return value === null ? 'failed' : shortNumber(value);
}

function ratio(value: number | null, other: number | null): string {
  return value === null || other === null ? '' : (value / other).toFixed(2);
}
