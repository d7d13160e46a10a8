import { ConfigError } from '../../src/config/config-error.ts';
import type { EngineClient } from '../../src/engine/engine-client.ts';
import type { ChatMessage } from '../../src/tokenizer/tokenizer.ts';

/** An answer of a conversation in the model's own chat format. */
export interface ScoredAnswer {
  /** The conversation up to where the answer begins. */
  promptTokenIds: Int32Array;
  /** The prompt, the answer and the token that ends it. */
  tokenIds: Int32Array;
}

/**
 * Reads conversations, JSON Lines of `{"messages": [{"role", "content"}, …]}`.
 *
 * @throws ConfigError for a line of another form
 */
export async function readConversations(path: string): Promise<ChatMessage[][]> {
  const lines = (await Bun.file(path).text()).split('\n');
  return lines.flatMap((line, index) => {
    if (line.trim() === '') return [];
    const messages = parseMessages(line);
    if (messages === null) {
      throw new ConfigError(
        `${path}, line ${index + 1}: expected {"messages": [{"role": "user", "content": "…"}, …]}.`,
      );
    }
    return [messages];
  });
}

function parseMessages(line: string): ChatMessage[] | null {
  let messages: unknown;
  try {
    messages = (JSON.parse(line) as { messages?: unknown } | null)?.messages;
  } catch {
    return null;
  }
  const isMessage = (value: unknown) => {
    const { role, content } = (value ?? {}) as { role?: unknown; content?: unknown };
    return typeof role === 'string' && typeof content === 'string';
  };
  return Array.isArray(messages) && messages.every(isMessage) ? (messages as ChatMessage[]) : null;
}

/** Every assistant message of the conversations, rendered by the model's chat template. */
export async function scoredAnswers(
  client: EngineClient,
  conversations: readonly ChatMessage[][],
): Promise<ScoredAnswer[]> {
  const encode = (text: string) => client.encode(text, { addSpecialTokens: false });
  const answers: ScoredAnswer[] = [];
  for (const messages of conversations) {
    for (const [end, message] of messages.entries()) {
      if (message.role !== 'assistant') continue;
      const render = (count: number, addGenerationPrompt: boolean) =>
        client.renderChat({
          messages: messages.slice(0, count),
          addGenerationPrompt,
          continueFinalMessage: false,
        });
      const prompt = render(end, true);
      // Templates write a line break after the token that ends an answer; no model is asked to say that.
      const whole = render(end + 1, false).trimEnd();
      answers.push({ promptTokenIds: await encode(prompt), tokenIds: await encode(whole) });
    }
  }
  return answers;
}
