export type FinishReason = 'stop' | 'length' | 'abort' | 'error' | 'repetition';

/** Why a request ended with the reason `error`. */
export interface RequestFailure {
  /** Whose: `client` where what the request asks for can't be had, `server` for an error here. */
  fault: 'client' | 'server';
  /** For the client. */
  message: string;
}
