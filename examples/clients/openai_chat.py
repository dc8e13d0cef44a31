"""Asks a served model with the official OpenAI client, once plainly and once as a stream.

    pip install openai
    python openai_chat.py --base-url http://cpu-gateway.default.svc/v1 --model tiny
"""

import argparse

from openai import OpenAI

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--base-url", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--question", default="Who are you?")
arguments = parser.parse_args()

# The client insists on a key; inside the cluster none is needed.
client = OpenAI(base_url=arguments.base_url, api_key="none")
question = [{"role": "user", "content": arguments.question}]

print("models:", ", ".join(model.id for model in client.models.list()))

answer = client.chat.completions.create(model=arguments.model, messages=question, temperature=0)
print("plain:", answer.choices[0].message.content)
print("tokens:", answer.usage.prompt_tokens, "in,", answer.usage.completion_tokens, "out")

print("streamed: ", end="")
finish_reason = None
for chunk in client.chat.completions.create(model=arguments.model, messages=question, temperature=0, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
    finish_reason = chunk.choices[0].finish_reason or finish_reason
print("\nfinish reason:", finish_reason)
