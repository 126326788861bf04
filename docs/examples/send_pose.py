"""Send hand poses to EMBridge over UDP, 60 a second: a hand that opens and closes."""

from __future__ import annotations

import json
import math
import socket
import time

ADDRESS = ("127.0.0.1", 9763)
RATE_HZ = 60

sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
start = time.monotonic()
frame = 0
while True:
    closed = 0.5 - 0.5 * math.cos(2 * math.pi * 0.5 * frame / RATE_HZ)
    thumb = [0.3 * closed, 0.0, 0.5 * closed, 0.6 * closed]
    finger = [0.0, 1.4 * closed, 1.7 * closed, 1.0 * closed]
    sender.sendto(json.dumps({"frame": frame, "pose": thumb + 4 * finger}).encode(), ADDRESS)
    frame += 1
    time.sleep(max(0.0, start + frame / RATE_HZ - time.monotonic()))
