/** The operator's mistake, told in one sentence without a stack. Exit code 2: the command line is wrong; 1: what it names is (a folder, a file, a value against the model). */
export class ConfigError extends Error {
  constructor(
    message: string,
    readonly exitCode: 1 | 2 = 1,
  ) {
    super(message);
    this.name = 'ConfigError';
  }
}

/** A command line, environment variable or config file that can't be read: exit code 2. */
export class UsageError extends ConfigError {
  constructor(message: string) {
    super(message, 2);
    this.name = 'UsageError';
  }
}
