import { ValidationError } from '../../errors/validation-error.ts';

const MAX_SHOWN = 80;

/**
 * @param field path of the value ("tools[0].name"); its first part is the parameter at fault
 * @param expected what would be right
 */
export function wrongValue(field: string, expected: string, value: unknown): ValidationError {
  const shown = (JSON.stringify(value) ?? 'nothing').slice(0, MAX_SHOWN);
  return new ValidationError(`\`${field}\` must be ${expected}, not ${shown}.`, field.split(/[.[]/)[0]);
}
