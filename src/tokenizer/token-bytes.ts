import type { ByteDecoding } from './tokenizer.ts';
import type { DecoderConfig, TokenizerJson } from './tokenizer-files.ts';

/** How a vocabulary spells bytes. */
export type TokenSpelling = (token: string) => Uint8Array;

const utf8 = new TextEncoder();

/**
 * The byte alphabet of GPT-2's tokenizer: each byte is a printable character. Bytes that are printable in Latin-1 stand for themselves,
 * the others take the code points from U+0100 on, in order.
 */
const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = new Map(
  (() => {
    const entries: [string, number][] = [];
    let next = 0x100;
    for (let byte = 0; byte < 256; byte++) {
      const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      entries.push([String.fromCharCode(printable ? byte : next++), byte]);
    }
    return entries;
  })(),
);

/**
 * How to decode by joining bytes, for the decoders where that is all there is to it: byte-level, and SentencePiece's
 * (replace "▁", byte fallback, fuse, strip the first space). null: the library's decoder is needed.
 *
 * Broken UTF-8 becomes U+FFFD by the WHATWG rules in either. The tokenizers library does otherwise after byte fallback, where one wrong byte
 * spoils its whole run; a stream could not take back what it has sent.
 */
export function byteDecodingOf(json: TokenizerJson): ByteDecoding | null {
  const decoders = flatten(json.decoder);
  if (decoders.length === 0) return null;
  if (decoders[0]!.type === 'ByteLevel') return decoders.length === 1 ? { stripStart: 0 } : null;
  let fused = false;
  let stripStart = 0;
  for (const decoder of decoders) {
    if (decoder.type === 'Fuse') fused = true;
    else if (decoder.type === 'Metaspace') stripStart += decoder.prepend_scheme === 'never' ? 0 : 1;
    else if (decoder.type === 'Strip' && fused && decoder.content === ' ' && !decoder.stop)
      stripStart += Number(decoder.start);
    else if (decoder.type !== 'ByteFallback' && spaceSpelling(decoder).length === 0) return null;
  }
  return { stripStart };
}

/**
 * The bytes of a token in the middle of a text, for a vocabulary with this tokenizer.json: byte-level ("Ġthe"), byte-fallback ("<0x0A>"),
 * SentencePiece ("▁the") and WordPiece ("##ing"). Added tokens are literal text and must not be passed.
 */
export function tokenSpelling(json: TokenizerJson): TokenSpelling {
  const decoders = flatten(json.decoder);
  if (decoders.some((decoder) => decoder.type === 'ByteLevel')) return spellByteLevel;
  const byteFallback = decoders.some((decoder) => decoder.type === 'ByteFallback');
  const wordPiece = decoders.find((decoder) => decoder.type === 'WordPiece');
  const suffix = decoders.find((decoder) => decoder.type === 'BPEDecoder')?.suffix;
  const spaces = decoders.flatMap(spaceSpelling);
  return (token) => {
    if (byteFallback && /^<0x[0-9A-Fa-f]{2}>$/.test(token))
      return Uint8Array.of(Number.parseInt(token.slice(3, 5), 16));
    let text = token;
    for (const space of spaces) text = text.replaceAll(space, ' ');
    if (typeof suffix === 'string' && suffix !== '') text = text.replaceAll(suffix, ' ');
    if (wordPiece !== undefined) {
      const prefix = typeof wordPiece.prefix === 'string' ? wordPiece.prefix : '##';
      text = text.startsWith(prefix) ? text.slice(prefix.length) : ` ${text}`;
    }
    return utf8.encode(text);
  };
}

/** A token that holds a character outside the alphabet is literal text, as in the tokenizers library. */
function spellByteLevel(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF_CHARACTER.get(token[i]!);
    if (byte === undefined) return utf8.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

/** The character that a decoder turns into a space ("▁"). */
function spaceSpelling(decoder: DecoderConfig): string[] {
  if (decoder.type === 'Metaspace') return [typeof decoder.replacement === 'string' ? decoder.replacement : '▁'];
  if (decoder.type !== 'Replace' || decoder.content !== ' ') return [];
  const pattern = (decoder.pattern as { String?: unknown } | undefined)?.String;
  return typeof pattern === 'string' && pattern !== '' ? [pattern] : [];
}

function flatten(decoder: DecoderConfig | null): DecoderConfig[] {
  if (decoder === null || decoder === undefined) return [];
  return decoder.type === 'Sequence' ? (decoder.decoders ?? []).flatMap(flatten) : [decoder];
}
