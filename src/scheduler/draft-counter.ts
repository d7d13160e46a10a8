/** What became of drafts, counted as vLLM does: a draft is what was drafted for one request in one step. Totals since start. */
export interface DraftCounts {
  numDrafts: number;
  numDraftTokens: number;
  numAcceptedTokens: number;
  /** How often the draft's token at that place held: as long as the longest draft so far. */
  acceptedPerPosition: number[];
}

export class DraftCounter {
  private readonly counts: DraftCounts = {
    numDrafts: 0,
    numDraftTokens: 0,
    numAcceptedTokens: 0,
    acceptedPerPosition: [],
  };

  get totals(): DraftCounts {
    return { ...this.counts, acceptedPerPosition: [...this.counts.acceptedPerPosition] };
  }

  add(numDrafted: number, numAccepted: number): void {
    if (numDrafted === 0) return;
    const { acceptedPerPosition } = this.counts;
    this.counts.numDrafts++;
    this.counts.numDraftTokens += numDrafted;
    this.counts.numAcceptedTokens += numAccepted;
    while (acceptedPerPosition.length < numDrafted) acceptedPerPosition.push(0);
    for (let i = 0; i < numAccepted; i++) acceptedPerPosition[i]!++;
  }
}
