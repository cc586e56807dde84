"""A device that asks for too much and says too much: it is cut short and named, and the others notice nothing."""

import time
from pathlib import Path

import pytest

from common.chunks import full, layout_of, to_wire
from common.messages import Hello, Want, encode
from common.topics import Kind, topic
from coordinator.rehearsal.federation import FEDERATION
from tests.system.conftest import LiveFederation

pytestmark = pytest.mark.system

SAY = topic(Kind.DEV_SAY, FEDERATION, device="greedy")
STREAMS = 5
"""The whole model four times at once, and what a minute's share comes to meanwhile."""


def test_a_greedy_device_is_cut_short_and_named_while_a_round_runs(tmp_path: Path) -> None:
    with LiveFederation(tmp_path, {"rpi1": 7}) as live:
        live.begin("mosquitto", transfer={"merge_s": 0.01})
        model = live.store.global_model()
        assert model is not None
        wish = encode(Want(device="greedy", blob=model.id, chunks=to_wire(full(layout_of(model).total))))
        with live.onlooker(topic(Kind.BLOB, FEDERATION, blob=model.id), "fedpi/#") as onlooker:
            for _ in range(40):
                onlooker.say(SAY, wish)
                time.sleep(0.05)
            live.until_logged("coordinator", "device=greedy exceeds its budget of chunks wanted")
            for number in range(3000):
                onlooker.say(SAY, encode(Hello(device="greedy", nonce=f"{number:x}")))
            live.until_logged("coordinator", "device=greedy exceeds its budget of messages")
            (row,) = live.run()
            drawn = sum(
                len(heard.payload) for heard in onlooker.below(f"{topic(Kind.BLOB, FEDERATION, blob=model.id)}")
            )
    assert row.phase == "committed"
    assert model.size < drawn < STREAMS * (model.size + model.head_bytes) * 1.02
    assert live.log("coordinator").count("device=greedy exceeds its budget of messages") == 1
