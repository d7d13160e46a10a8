import { type Answer, good, type Json } from './field-case.ts';

export const CITY = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
export const FUNCTION = { name: 'get_weather', description: 'Get the current weather in a city.', parameters: CITY };
export const TOOLS = [{ type: 'function', function: FUNCTION }];
/** Another one that the model has arguments for. */
export const OTHER = { type: 'function', function: { ...FUNCTION, name: 'get_time' } };
export const CALL = { type: 'function', function: { name: 'get_weather' } };
export const WEATHER_QUESTION = 'What is the weather in Paris?';
/** A conversation whose answer is a call, where the tool is there. */
export const WEATHER = { messages: [{ role: 'user', content: WEATHER_QUESTION }], max_tokens: 60 };

const call = (city: string) => `<tool_call>\n{"name": "get_weather", "arguments": {"city": "${city}"}}\n</tool_call>`;
export const TWO_CALLS = `${call('Paris')}\n${call('Rome')}`;

/** Names of the tools that a chat's answer calls. */
export function calledTools(answer: Answer): string[] {
  return (good(answer).choices[0].message.tool_calls ?? []).map((each: Json) => each.function.name);
}
