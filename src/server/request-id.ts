const ID_BYTES = 8;
/** For many ids at once: asking for random bytes costs more than the bytes do. */
const random = Buffer.alloc(ID_BYTES * 512);
let used = random.length;

/** 16 hexadecimal digits. */
export function randomId(): string {
  if (used === random.length) {
    crypto.getRandomValues(random);
    used = 0;
  }
  used += ID_BYTES;
  return random.toString('hex', used - ID_BYTES, used);
}

const MAX_ID_LENGTH = 256;

/** The id that a client's X-Request-Id or `request_id` asks for, or a random one. It goes into headers and logs: printable ASCII, of limited length. */
export function chooseRequestId(...wanted: (string | null | undefined)[]): string {
  for (const id of wanted) if (id != null && id.length <= MAX_ID_LENGTH && /^[\x20-\x7e]+$/.test(id)) return id;
  return randomId();
}
