export const LOG_LEVELS = ['debug', 'info', 'warning', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Facts beside the text: `key=value` on a terminal, members in JSON. Names that hold secrets (apiKey, hfToken, authorization, …) are masked. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface LogRecord {
  time: Date;
  level: LogLevel;
  /** The component that speaks: "scheduler", "server". */
  name: string;
  /** Which thread speaks ("core 0"), null on the main thread. */
  thread: string | null;
  text: string;
  fields: LogFields;
}
