"""Streams one answer to the terminal, with nothing but Python's standard library.

    python3 ask.py --base-url http://cpu-gateway.default.svc/v1 --model tiny "Who are you?"
"""

import argparse
import json
import sys
import urllib.request

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--base-url", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("question")
arguments = parser.parse_args()

body = {
    "model": arguments.model,
    "messages": [{"role": "user", "content": arguments.question}],
    "temperature": 0,
    "stream": True,
}
request = urllib.request.Request(
    arguments.base_url + "/chat/completions",
    data=json.dumps(body).encode(),
    headers={"content-type": "application/json"},
)
finish_reason = None
with urllib.request.urlopen(request, timeout=120) as response:
    for line in response:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue  # comments while the request waits, and the end mark
        event = json.loads(line[len(b"data: ") :])
        if "error" in event:
            sys.exit(f"\nthe server said: {event['error']['message']}")
        for choice in event["choices"]:
            print(choice["delta"].get("content") or "", end="", flush=True)
            finish_reason = choice["finish_reason"] or finish_reason
print()
if finish_reason is None:
    sys.exit("the stream broke off: no finish reason")
