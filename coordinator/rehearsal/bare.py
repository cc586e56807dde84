"""The limit that the benchmark compares with: a bare loop of paho that moves the same bytes.

The coordinator publishes the model in chunks, once; every device checks each chunk's SHA-256, adds a
constant and publishes as many bytes back; the coordinator checks and sums them in float64. No journal,
no resume, no repair, no training, nothing written to disk.

`python -m coordinator.rehearsal.bare device PORT INDEX SIZE` and
`python -m coordinator.rehearsal.bare coordinator PORT DEVICES SIZE ROUNDS`, which prints JSON.
"""

import hashlib
import json
import queue
import resource
import sys
import time

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

CHUNK = 65_536
DIGEST = 32
IN_FLIGHT = 20
ROOT = "fedpi-wire/2/bare"
"""Below a root that the ACL of `fedpi-broker init` lets through."""


def _connect(port: int, topics: list[str]) -> tuple[mqtt.Client, "queue.SimpleQueue[mqtt.MQTTMessage]"]:
    inbox: queue.SimpleQueue[mqtt.MQTTMessage] = queue.SimpleQueue()
    subscribed: queue.SimpleQueue[bool] = queue.SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.max_inflight_messages_set(IN_FLIGHT)
    client.on_message = lambda _c, _u, message: inbox.put(message)
    client.on_subscribe = lambda *_: subscribed.put(True)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe([(topic, 1) for topic in topics])
    subscribed.get(timeout=30)
    return client, inbox


def _send(client: mqtt.Client, topic: str, data: memoryview) -> None:
    for offset in range(0, len(data), CHUNK):
        chunk = data[offset : offset + CHUNK]
        client.publish(topic, hashlib.sha256(chunk).digest() + bytes(chunk), qos=1)


def _checked(message: mqtt.MQTTMessage) -> bytes:
    chunk = bytes(message.payload[DIGEST:])
    if hashlib.sha256(chunk).digest() != message.payload[:DIGEST]:
        raise SystemExit("a chunk arrived damaged")
    return chunk


def device(port: int, index: int, size: int) -> None:
    """Answer every model with an update of as many bytes, until the coordinator says stop."""
    client, inbox = _connect(port, [f"{ROOT}/down", f"{ROOT}/stop"])
    client.publish(f"{ROOT}/ready/{index}", b"here", qos=1, retain=True)
    model, held = bytearray(size), 0
    while (message := inbox.get()).topic == f"{ROOT}/down":
        chunk = _checked(message)
        model[held : held + len(chunk)] = chunk
        held += len(chunk)
        if held == size:
            update = np.frombuffer(model, np.float32) + np.float32(index)
            _send(client, f"{ROOT}/up/{index}", memoryview(update.tobytes()))
            held = 0
    client.disconnect()


def coordinator(port: int, devices: int, size: int, rounds: int) -> None:
    """Run the rounds and print seconds a round and peak memory."""
    client, inbox = _connect(port, [f"{ROOT}/up/+", f"{ROOT}/ready/+"])
    for _ in range(devices):
        inbox.get(timeout=60)
    model = np.zeros(size // 4, np.float32)
    seconds: list[float] = []
    for _ in range(rounds):
        started = time.monotonic()
        _send(client, f"{ROOT}/down", memoryview(model.tobytes()))
        total, held = np.zeros(size // 4), [0] * devices
        while any(count < size for count in held):
            message = inbox.get(timeout=120)
            values = np.frombuffer(_checked(message), np.float32)
            index = int(message.topic.rpartition("/")[2])
            start = held[index] // 4
            total[start : start + len(values)] += values
            held[index] += values.nbytes
        model = (total / devices).astype(np.float32)
        seconds.append(time.monotonic() - started)
    client.publish(f"{ROOT}/stop", b"", qos=1).wait_for_publish(10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    if sys.argv[1] == "device":
        device(*map(int, sys.argv[2:]))
    else:
        coordinator(*map(int, sys.argv[2:]))
