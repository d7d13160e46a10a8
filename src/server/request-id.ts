/** 16 hexadecimal digits. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Buffer.from(bytes.buffer).toString('hex');
}

const MAX_ID_LENGTH = 256;

/** The id that a client's X-Request-Id or `request_id` asks for, or a random one. It goes into headers and logs: printable ASCII, of limited length. */
export function chooseRequestId(...wanted: (string | null | undefined)[]): string {
  for (const id of wanted) if (id != null && id.length <= MAX_ID_LENGTH && /^[\x20-\x7e]+$/.test(id)) return id;
  return randomId();
}
