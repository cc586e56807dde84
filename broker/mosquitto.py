"""Mosquitto for real use: its configuration and its ACL, rendered from the topic table. Pure.

What is rendered runs on Mosquitto 2.0.11 and later.
"""

import re
from collections.abc import Iterable

from broker.settings import ServeConfig, is_loopback
from common.bundle import COORDINATOR, MONITOR
from common.errors import ConfigError
from common.topics import HOME_ASSISTANT_ROOT, STORY_ROOT, TABLE, WIRE_ROOT, Party, Topic, of_version

CONF, ACL, PASSWORDS, DATA, PID = "mosquitto.conf", "acl", "passwords", "data", "mosquitto.pid"
CA, CERTIFICATE, KEY, REVOKED = "ca.crt", "server.crt", "server.key", "revoked.crl"
_DENIALS = "\n# Revoked: nothing, from the next SIGHUP on, also for a connection that is open.\n"
MIB = 2**20


def render_conf(config: ServeConfig, account: str) -> str:
    """Write mosquitto.conf; its files stand in `config.root`, and `account` runs the broker if root starts it.

    Raises ConfigError where anonymous access would be open to other machines.
    """
    _refuse_strangers(config)
    root = config.root
    return f"""\
# Mosquitto for fedpi, written by `fedpi-broker init`.

# ---- who may connect ----
listener {config.port} {config.host}
max_topic_alias 0
{_login(config)}
acl_file {root / ACL}
# If root starts Mosquitto it becomes this account, which can read these files.
user {account}

# ---- room for models: the defaults drop what passes 1000 messages, and tell nobody ----
max_inflight_messages 20
max_queued_messages 5000
max_queued_bytes {256 * MIB}
max_packet_size {MIB + MIB // 8}
set_tcp_nodelay true
max_keepalive 300

pid_file {root / DATA / PID}

# ---- what survives a restart; saving blocks the broker, so it does so seldom ----
persistence true
persistence_location {root / DATA}/
autosave_interval 300
persistent_client_expiration 14d

log_dest stderr
log_type error
log_type warning
log_type notice
"""


def _refuse_strangers(config: ServeConfig) -> None:
    if config.anonymous and not is_loopback(config.host):
        raise ConfigError(
            f"anonymous: without passwords the broker may listen on this machine only, not on {config.host}; "
            "drop 'anonymous' or listen on 127.0.0.1"
        )


def _login(config: ServeConfig) -> str:
    root = config.root
    if config.anonymous:
        return "allow_anonymous true"
    if not config.has_tls:
        return f"allow_anonymous false\npassword_file {root / PASSWORDS}"
    return f"""\
allow_anonymous false
cafile {root / CA}
certfile {root / CERTIFICATE}
keyfile {root / KEY}
crlfile {root / REVOKED}
require_certificate true
# The certificate's common name is the user.
use_identity_as_username true
# And later ones.
tls_version tlsv1.2"""


def render_acl(config: ServeConfig, shut_out: Iterable[str] = ()) -> str:
    """Write the ACL: a device reads what all devices read, and holds its own branch; `%u` is its user name.

    Who is `shut_out` holds nothing.
    """
    head = "# Who may publish and read what, rendered from fedpi's topic table by `fedpi-broker init`.\n"
    everything = "".join(f"topic readwrite {root}/#\n" for root in (STORY_ROOT, WIRE_ROOT, HOME_ASSISTANT_ROOT))
    if config.anonymous:
        return f"{head}# Anonymous on this machine: no wall between devices.\n{everything}"
    sections = [
        head,
        f"user {COORDINATOR}\n{everything}",
        "# Reads what people read. The rules for devices below hold for every user: hence the denials.\n"
        f"user {MONITOR}\ntopic read {STORY_ROOT}/#\ntopic read {HOME_ASSISTANT_ROOT}/#\ntopic deny {WIRE_ROOT}/#\n"
        f"topic deny {STORY_ROOT}/+/+/dev/{MONITOR}/#\n",
        "# Every device. Mosquitto warns that some of these name no %u: those are the ones for all devices.\n"
        + "\n".join(_device_rules(config.federation or "+"))
        + "\n",
    ]
    return with_denials("\n".join(sections), shut_out)


def with_denials(acl: str, shut_out: Iterable[str]) -> str:
    """Put these denials in the place of those that an ACL has; all else, also what an operator added, stays."""
    denials = "".join(f"user {name}\ntopic deny #\n" for name in shut_out)
    kept = re.sub(re.escape(_DENIALS) + r"(?:user \S+\ntopic deny #\n)*", "", acl)
    return kept + (_DENIALS + denials if denials else "")


def listeners(conf: str) -> list[tuple[str, int]]:
    """Read back where a mosquitto.conf listens: addresses (all of them where none is named) and ports."""
    found = re.findall(r"^listener[ \t]+(\d+)(?:[ \t]+(\S+))?", conf, re.MULTILINE)
    return [(host or "0.0.0.0", int(port)) for port, host in found]  # noqa: S104 - what Mosquitto does


def _device_rules(federation: str) -> list[str]:
    """One rule for each row of the table that a device publishes or reads, in each version that has it."""
    return [
        f"pattern {access} {of_version(version, row.pattern).format(federation=federation, device='%u', blob='+')}"
        for row in TABLE
        if (access := _device_access(row)) is not None
        for version in row.versions
    ]


def _device_access(row: Topic) -> str | None:
    writes, reads = row.publisher is Party.DEVICE, Party.DEVICE in row.readers
    if writes and reads:
        return "readwrite"
    return "write" if writes else "read" if reads else None
