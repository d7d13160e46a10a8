/** Whether a mask, one bit a token, allows a token. */
export function isSet(mask: Int32Array, id: number): boolean {
  return ((mask[id >> 5]! >> (id & 31)) & 1) === 1;
}
