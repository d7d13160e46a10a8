/** Text with columns: the first to the left, the others to the right. A row of one cell is a heading. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, ...rows].filter((row) => row.length > 1);
  const widths = head.map((_, column) => Math.max(...lines.map((row) => row[column]?.length ?? 0)));
  const format = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  ')
      .trimEnd();
  const rule = widths.map((width) => '-'.repeat(width)).join('  ');
  return `${[format(head), rule, ...rows.map((row) => (row.length === 1 ? `\n${row[0]}` : format(row)))].join('\n')}\n`;
}

/** Name and value pairs, one a line. */
export function formatPairs(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join('');
}

/** Three significant digits below 100, whole numbers with separators above. */
export function shortNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}

/** A figure as a share of its limit: "21.4 (0.93)". */
export function withShare(value: number, limit: number): string {
  return `${shortNumber(value)} (${(value / limit).toFixed(2)})`;
}
