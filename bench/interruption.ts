const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs an action whose signal is aborted when this process is told to end, so that it may clean up; the process then ends by what it was told. Told a second
 * time it ends at once.
 */
export async function interruptible<Value>(action: (signal: AbortSignal) => Promise<Value>): Promise<Value> {
  const controller = new AbortController();
  let told: NodeJS.Signals | null = null;
  const stopListening = () => {
    for (const name of SIGNALS) process.off(name, onSignal);
  };
  const onSignal = (name: NodeJS.Signals) => {
    told = name;
    stopListening();
    controller.abort(new Error(`Interrupted by ${name}.`));
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  try {
    return await action(controller.signal);
  } finally {
    stopListening();
    if (told !== null) process.kill(process.pid, told);
  }
}
