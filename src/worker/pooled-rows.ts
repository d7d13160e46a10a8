import type { HeadRows } from '../layers/pooler-head.ts';
import { groupByAdapter, type LoRAGroups } from '../lora/lora-batch.ts';
import type { SeqPoolingType } from '../pooling/pooling-config.ts';
import { isTokenwise } from '../pooling/pooling-params.ts';
import type { StepRow } from './step-inputs.ts';

/** A request's rows among those that a step pools. */
interface PooledPart {
  row: StepRow;
  /** Of its tokens in the step's batch. */
  firstToken: number;
  /** Of its pooled rows. */
  firstRow: number;
  numRows: number;
}

/** The rows that a step pools: the base model's first, then those of each adapter together, so that a head runs over neighbours. */
export class PooledRows {
  /** In the order of the step's requests. */
  readonly parts: readonly PooledPart[];
  /** In the order of the pooled rows. */
  readonly groups: readonly HeadRows[];
  readonly numRows: number;

  constructor(rows: readonly StepRow[]) {
    let firstToken = 0;
    this.parts = rows.map((row) => {
      const part = { row, firstToken, firstRow: 0, numRows: numPooledRows(row) };
      firstToken += row.numScheduledTokens;
      return part;
    });
    const groups: HeadRows[] = [];
    let firstRow = 0;
    for (const part of this.parts.toSorted((a, b) => slotOf(a) - slotOf(b))) {
      part.firstRow = firstRow;
      firstRow += part.numRows;
      const slot = part.row.state.lora?.slot ?? null;
      const last = groups.at(-1);
      if (last !== undefined && last.slot === slot) last.numRows += part.numRows;
      else groups.push({ slot, numRows: part.numRows });
    }
    this.groups = groups;
    this.numRows = firstRow;
  }

  /** Writes i32 [numRows, 2]: first token and number of tokens of each row's mean. */
  writeSpans(words: Int32Array, type: SeqPoolingType): void {
    for (const { row, firstToken, firstRow, numRows } of this.parts) {
      const count = row.numScheduledTokens;
      let at = 2 * firstRow;
      const write = (start: number, length: number) => {
        words[at++] = start;
        words[at++] = length;
      };
      if (numRows === 0) continue;
      if (isTokenwise(row.state.pooling!)) for (let i = 0; i < count; i++) write(firstToken + i, 1);
      else if (type === 'MEAN') write(firstToken, count);
      else write(type === 'CLS' ? firstToken : firstToken + count - 1, 1);
    }
  }

  /** The adapters of the pooled rows; null: none has one. */
  adapterGroups(): LoRAGroups | null {
    return groupByAdapter(
      this.parts.map(({ row, firstRow, numRows }) => ({
        lora: numRows === 0 ? null : row.state.lora,
        firstToken: firstRow,
        numTokens: numRows,
      })),
    );
  }
}

function slotOf({ row }: PooledPart): number {
  return row.state.lora?.slot ?? -1;
}

/** Rows that a request gets of this step. */
function numPooledRows({ state: { pooling }, numScheduledTokens, samples }: StepRow): number {
  if (pooling === null) throw new Error('a request without pooling parameters has come to a model that is pooled');
  if (isTokenwise(pooling)) return numScheduledTokens;
  return samples ? 1 : 0;
}
