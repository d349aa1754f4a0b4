"""Start the server on a free port, send a clip and a sentence, print the predictions, and stop.

python examples/08_serve_and_client.py
"""

import json
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen


HUB = Path(__file__).resolve().parents[1] / "hub"
CLIP = HUB / "sample" / "clips" / "060.mp4"

# The command that pip installs, next to this Python.
umons = Path(sys.executable).with_name("umons")
command = [umons, "serve", "--port", "0", "--model", HUB / "umons-mini"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
try:
    ready = server.stdout.readline().strip()  # "umons: umons-mini at http://127.0.0.1:PORT/predict"
    url = ready.rpartition(" ")[2]
    print(ready)

    def post(body: bytes, content_type: str) -> dict:
        with urlopen(Request(url, body, {"Content-Type": content_type}), timeout=30) as response:
            return json.load(response)

    print("Clip:", post(CLIP.read_bytes(), "video/mp4"))
    print("Text:", post(json.dumps({"inputs": {"text": "what a wonderful day"}}).encode(), "application/json"))
    with urlopen(url.replace("/predict", "/health"), timeout=30) as response:
        print("Health:", json.load(response))
finally:
    server.terminate()
    server.wait(timeout=30)
    server.stdout.close()
print("Stopped.")
