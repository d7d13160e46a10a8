"""The official Python package against a server: URL and key are the arguments, what it got goes to standard output as one JSON object."""

import asyncio
import json
import sys

import openai
from pydantic import BaseModel

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Capital(BaseModel):
    known: bool


def refusal(call):
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.param]
    return None


def chat():
    answer = client.chat.completions.create(model="demo", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish_reason": choice.finish_reason,
        "top": [len(token.top_logprobs) for token in choice.logprobs.content],
        "tokens": answer.usage.completion_tokens,
    }


def chat_stream():
    text, usage = "", None
    with client.chat.completions.create(
        model="demo", messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return {"text": text, "tokens": usage.completion_tokens}


def parsed():
    answer = client.chat.completions.parse(model="demo", messages=QUESTION, response_format=Capital, temperature=0)
    return isinstance(answer.choices[0].message.parsed, Capital)


def tool_call():
    tools = [{"type": "function", "function": WEATHER}]
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = client.chat.completions.create(
        model="demo", messages=QUESTION, tools=tools, tool_choice=choice, temperature=0, max_tokens=64
    )
    call = answer.choices[0].message.tool_calls[0]
    return {"name": call.function.name, "arguments": sorted(json.loads(call.function.arguments))}


def responses():
    answer = client.responses.create(model="demo", input="What is the capital of France?", temperature=0)
    again = client.responses.retrieve(answer.id)
    events = [event.type for event in client.responses.create(model="demo", input="Hello", stream=True, temperature=0)]
    return {"text": answer.output_text, "again": again.output_text, "first": events[0], "last": events[-1]}


async def concurrent():
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as each:
        calls = [each.completions.create(model="demo", prompt=f"{i} and", max_tokens=4, temperature=0) for i in range(16)]
        return len([answer.choices[0].text for answer in await asyncio.gather(*calls)])


print(
    json.dumps(
        {
            "version": openai.__version__,
            "models": [model.id for model in client.models.list()],
            "chat": chat(),
            "chat_stream": chat_stream(),
            "parsed": parsed(),
            "tool_call": tool_call(),
            "responses": responses(),
            "completion": client.completions.create(
                model="demo", prompt="The capital of France is", max_tokens=3, temperature=0, extra_body={"top_k": 5}
            )
            .choices[0]
            .text,
            "concurrent": asyncio.run(concurrent()),
            "refusals": [
                refusal(lambda: client.chat.completions.create(model="demo", messages=QUESTION, temperature=-1)),
                refusal(lambda: client.chat.completions.create(model="other", messages=QUESTION)),
                refusal(lambda: client.with_options(api_key="wrong").models.list()),
            ],
        }
    )
)
