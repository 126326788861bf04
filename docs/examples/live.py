"""Print what the hand does: `embridge live myo --output websocket`, and this beside it."""

from __future__ import annotations

import asyncio
import json
import sys

from websockets.asyncio.client import connect

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8471/?hz=0"


async def listen() -> None:
    async with connect(URL) as socket:
        async for text in socket:
            message = json.loads(text)
            match message["type"]:
                case "hello":
                    print("decoding:", ", ".join(message["vocabulary"]) or "nothing yet", flush=True)
                case "gesture" if message["change"] == "onset":
                    print(f"{message['gesture']} began ({message['probability']:.0%} sure)", flush=True)
                case "gesture" if message["change"] == "release":
                    print(f"{message['gesture']} ended after {message['lasted_s']:.1f} s", flush=True)
                case "notice":
                    print(f"{message['about']}: {message['text']} {message['hint']}", flush=True)


asyncio.run(listen())
