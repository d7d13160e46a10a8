/** Variables that change what Bao does. */
const VARIABLES = /^(?:BAO_|HF_|OTEL_|CUDA_|XDG_CACHE_HOME$|CXX$|NO_COLOR$)/;
const SECRETS = /KEY|TOKEN|SECRET|PASSWORD|HEADERS/;

/** Name and value of the environment variables that Bao heeds, by name; of secrets only that they are set. */
export function settingVariables(environment: Readonly<Record<string, string | undefined>>): [string, string][] {
  return Object.entries(environment)
    .filter((entry): entry is [string, string] => VARIABLES.test(entry[0]) && entry[1] !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => [name, SECRETS.test(name) ? '(set)' : value]);
}
