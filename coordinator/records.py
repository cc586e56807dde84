"""How the journal keeps a round: records of its own with a version, written and read in this one place. Pure.

A record holds all of a round but its members, whose rows are in the ledger. It is written when the round's phase
changes; a change of one device writes that device's row. What fedpi 0.1.0 wrote has no version.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from common import plan as plans
from common.errors import DataError, PeerError
from common.messages import Ref
from common.plan import ModelChoice, RoundPlan, Training
from coordinator.method import Method
from coordinator.options import RoundOptions
from coordinator.round_state import OPEN, Member, Phase, Round

VERSION = 2
EARLIER_GENERATION = "0"
"""Stands for that of a round of fedpi 0.1.0, which had none."""
EARLIER_OPEN = "it was left open by fedpi 0.1.0, and this version cannot finish it"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A round without its members; `plan` is the plan as it travels."""

    version: int = VERSION
    plan: bytes
    options: RoundOptions
    method: Method
    phase: Phase
    phase_since: float
    result: Ref | None = None
    reason: str = ""


def write(round_: Round) -> str:
    """Return the record of a round."""
    fields = {name: getattr(round_, name) for name in ("options", "method", "phase", "phase_since", "result", "reason")}
    return msgspec.json.encode(Record(plan=round_.packed, **fields)).decode()


def read(text: str, members: Iterable[Member]) -> Round:
    """Return the round of a record and of its rows in the ledger; raises DataError with the cure."""
    try:
        plain = msgspec.json.decode(text)
        version = plain.get("version", 1)
        if version > VERSION:
            raise DataError(
                f"the journal has a round of record version {version}; this fedpi reads {VERSION}: upgrade fedpi"
            )
        if version == 1:
            return _read_earlier(plain, tuple(members))
        record = msgspec.convert(plain, Record, builtin_types=())
        plan = plans.read(record.plan)
    except (msgspec.MsgspecError, PeerError, AttributeError, TypeError, KeyError, UnicodeError) as error:
        raise DataError(f"the journal is damaged: {error}; put it back from a backup") from error
    return Round(
        plan=plan,
        packed=record.plan,
        options=record.options,
        method=record.method,
        phase=record.phase,
        members=tuple(members),
        phase_since=record.phase_since,
        result=record.result,
        reason=record.reason,
    )


def is_unfinished(round_: Round) -> bool:
    """Whether a round was open, or being averaged, when it was written."""
    return round_.phase in {*OPEN, Phase.AGGREGATING}


def _read_earlier(plain: dict[str, Any], members: tuple[Member, ...]) -> Round:
    """Read what fedpi 0.1.0 wrote: plan, rules and limits had their fields in other places."""
    old = dict(plain["plan"])
    model, deadline_s = msgspec.convert(old.pop("model"), ModelChoice), old.pop("deadline_s")
    plan = RoundPlan(
        round=plain["number"],
        generation=EARLIER_GENERATION,
        base=msgspec.convert(plain["base"], Ref),
        model=model,
        training=msgspec.convert(_known(old, Training), Training),
        deadline_s=deadline_s,
    )
    options = _known({**plain["rules"], **plain["limits"]}, RoundOptions)
    return Round(
        plan=plan,
        packed=plans.write(plan),
        options=msgspec.convert(options, RoundOptions),
        method=msgspec.convert(plain.get("method", {}), Method),
        phase=Phase(plain["phase"]),
        members=members,
        phase_since=plain.get("phase_since", 0.0),
        result=msgspec.convert(plain.get("result"), Ref | None),
        reason=plain.get("reason", ""),
    )


def _known(plain: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name in kind.__struct_fields__}
