/** What every engine is given: the same model, and room for the largest batch. */
export interface PeerWorkload {
  /** Folder with config.json. */
  model: string;
  /** Random weights of the model's shape in place of a checkpoint. */
  dummyWeights: boolean;
  /** How matrices are kept: as they are, or in 8 or 4 bits. Engines that can't make that of a checkpoint sit out. */
  quantization: 'none' | 'int8' | 'int4';
  threads: number;
  maxModelLen: number;
  maxBatchSize: number;
}

/** Where engines are that aren't on the PATH or among this project's packages. */
export interface PeerLocations {
  /** Python of the environment that vLLM is installed in. */
  vllmPython: string | null;
  /** Folder whose node_modules has node-llama-cpp. */
  nodeLlamaCpp: string | null;
  /** NAME=FILE of programs of llama.cpp's family, each with its options. */
  llamaServer: readonly string[];
  /** A GGUF file of the model, in place of one that is written from its weights. */
  gguf: string | null;
}

/** So many prompts at once, each of `inputLen` random tokens, and `outputLen` tokens from each. */
export interface PeerBatch {
  batchSize: number;
  /** Prompts in each one's place, one after another. */
  requestsEach: number;
  inputLen: number;
  outputLen: number;
}

/** When the tokens of one sequence came, seconds from the batch's start, ascending. A piece of the stream may have brought several. */
export interface SequenceArrivals {
  /** One for each piece. */
  times: readonly number[];
  numTokens: number;
}

/** A running engine. */
export interface PeerSession {
  /** From the start of its process until it could take a prompt, seconds. */
  readonly readySeconds: number;
  /** Arrivals of each sequence. */
  run(batch: PeerBatch): Promise<SequenceArrivals[]>;
  /** Stops its processes until it is resumed: an engine that waits must take nothing from the one that is measured. */
  pause(): void;
  /** Continues them; settles when the engine has answered a small batch of as many sequences, so that it isn't measured cold. */
  resume(batch: PeerBatch): Promise<void>;
  /** Ends its processes, paused or not. */
  close(): Promise<void>;
}

/** An engine to compare with. A peer is one file that exports one of these. */
export interface Peer {
  readonly name: string;
  /** Its version where it can run this here, else null. */
  version(workload: PeerWorkload): Promise<string | null>;
  /** When the signal is aborted, it ends what it has started and rejects with the signal's reason. */
  start(workload: PeerWorkload, signal: AbortSignal): Promise<PeerSession>;
}

/** As many sequences, and next to no work for them. */
export function smallBatch({ batchSize, inputLen, outputLen }: PeerBatch): PeerBatch {
  return { batchSize, requestsEach: 1, inputLen: Math.min(inputLen, 4), outputLen: Math.min(outputLen, 2) };
}
