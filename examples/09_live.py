"""Start the server, send a clip to its WebSocket as if it were recorded now, and print the predictions as they come.

python examples/09_live.py
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from websockets.asyncio.client import connect

from modeling_umons.models.umons.media_umons import read_clip


HUB = Path(__file__).resolve().parents[1] / "hub"
CLIP = HUB / "sample" / "clips" / "060.mp4"
RATE = 16_000
CHUNK_S = 0.1

# The command that pip installs, next to this Python.
umons = Path(sys.executable).with_name("umons")
command = [umons, "serve", "--port", "0", "--model", HUB / "umons-mini"]
samples = (read_clip(CLIP, video=False, sampling_rate=RATE).audio * 32767).astype("<i2")


async def record(socket) -> None:
    """Send the samples in real time."""
    size = round(CHUNK_S * RATE)
    for first in range(0, len(samples), size):
        await asyncio.sleep(CHUNK_S)
        await socket.send(samples[first : first + size].tobytes())
    await socket.send(json.dumps({"type": "end"}))


async def listen(url: str) -> None:
    async with connect(url, proxy=None) as socket:
        recording = asyncio.create_task(record(socket))
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "prediction":
                print(event["timestamp"], "final" if event["is_final"] else "partial", event["label"])
        await recording


server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
try:
    # "umons: umons-mini at http://127.0.0.1:PORT/predict"
    address = server.stdout.readline().strip().rpartition(" ")[2]
    address = address.replace("http", "ws").replace("/predict", "/stream")
    asyncio.run(listen(f"{address}?sampling_rate={RATE}&chunk_length_s=2"))
finally:
    server.terminate()
    server.wait(timeout=30)
    server.stdout.close()
