/** What every engine is given: the same model, prompts of the same length, the same number of sequences at once. */
export interface PeerWorkload {
  /** Folder with config.json. */
  model: string;
  /** Random weights of the model's shape in place of a checkpoint. */
  dummyWeights: boolean;
  /** The same model for engines that read GGUF; null: they sit out. */
  gguf: string | null;
  threads: number;
  maxModelLen: number;
  maxBatchSize: number;
}

/** Tokens a second: of the prompts until every sequence has its first token, of the output after that. */
export interface PeerRates {
  prefillTokensPerS: number;
  decodeTokensPerS: number;
}

export interface PeerBatch {
  batchSize: number;
  inputLen: number;
  outputLen: number;
}

/** A running engine. */
export interface PeerSession {
  run(batch: PeerBatch): Promise<PeerRates>;
  close(): Promise<void>;
}

/** An engine to compare with. A peer is one file that exports one of these. */
export interface Peer {
  readonly name: string;
  /** Its version where it can run here, else null. */
  version(workload: PeerWorkload): Promise<string | null>;
  start(workload: PeerWorkload): Promise<PeerSession>;
}
