/** The address that a server tells when it is ready. Throws with its log when it ends before. */
export async function waitForServer(child: { stderr: ReadableStream<Uint8Array> }): Promise<string> {
  const decoder = new TextDecoder();
  let log = '';
  for await (const bytes of child.stderr) {
    log += decoder.decode(bytes, { stream: true });
    const ready = /Ready after [\d.]+ s: (\S+)\/v1/.exec(log);
    if (ready !== null) return ready[1]!;
  }
  throw new Error(`The server ended before it was ready:\n${log}`);
}
