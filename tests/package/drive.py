"""Tries an installed wheel, run by its Python, which has no other package: a client at work.

`drive.py URL CA_FILE COUNT` subscribes to two streams, receives that many messages and prints what
it saw as JSON. It may import the standard library and hftws, and has to run from 3.10 on.
"""

import hashlib
import json
import sys
import time

import hftws

STREAMS = ["btcusdt@trade", "btcusdt@bookTicker"]
TIME_LIMIT_S = 30


def main() -> None:
    url, ca_file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    digest = hashlib.sha256()
    replies: list[bytes] = []
    received = 0

    def on_msg(msg: hftws.Message) -> None:
        nonlocal received
        if not replies:
            replies.append(bytes(msg.data))
        elif received < count:
            digest.update(msg.data)
            received += 1

    with hftws.Client(url, on_msg, ca_file=ca_file or None) as client:
        client.send(json.dumps({"method": "SUBSCRIBE", "params": STREAMS, "id": 1}))
        deadline = time.monotonic() + TIME_LIMIT_S
        while received < count and time.monotonic() < deadline:
            client.poll(1.0)
        info = client.info()
    answer = {
        "file": hftws.__file__,
        "version": hftws.__version__,
        "received": received,
        "reply": replies[0].decode(),
        "digest": digest.hexdigest(),
        "engine": info["engine"],
        "aead": info["aead"],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
