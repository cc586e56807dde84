"""`fedpi-broker`: prepare a broker, run one, find out what one does."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.command import (
    FOLDER,
    PATH,
    Commands,
    console,
    json_option,
    print_json,
    table,
    usual_config,
    verbose_option,
    version_option,
)
from common.stopping import stop_on

if TYPE_CHECKING:
    from broker.settings import ServeConfig
    from common.config import BrokerConfig

USUAL_CONFIG = usual_config("broker")

config_option = click.option(
    "--config",
    "config_file",
    type=PATH,
    help=f"A YAML file like config/broker.yaml; flags beat it. [default: {USUAL_CONFIG}, where that is]",
)
folder_option = click.option("--out", "folder", help="The folder that `init` wrote.")
authority_option = click.option("--authority", help="Folder of the authority's key.")
to_option = click.option("--to", type=FOLDER, default=".", help="Folder to write into.")


@click.group(cls=Commands)
@version_option
def main() -> None:
    """Prepare, run and check the MQTT broker of a federation."""


@main.command()
@config_option
@click.option("--out", "folder", help="Folder to write into.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--federation", help="The one federation that devices may take part in.")
@click.option("--device", "devices", multiple=True, help="A device to make a password for; repeat it.")
@click.option("--tls/--no-tls", default=None, help="Certificates [default: unless only this machine is served]")
@click.option("--name", "names", multiple=True, help="A name or address of the broker; devices dial the first.")
@click.option("--days", type=int, help="How long certificates last.")
@authority_option
@click.option("--coordinator", help="The coordinator's configuration on this machine, to be pointed at the broker.")
@click.option("--anonymous", is_flag=True, default=None, help="No passwords; on this machine only.")
@click.option("--force", is_flag=True, help="Replace mosquitto.conf and acl even if they were edited.")
@click.option("--new-passwords", is_flag=True, help="New passwords for the users that exist, too.")
def init(config_file: Path | None, force: bool, new_passwords: bool, **flags: Any) -> None:
    """Write Mosquitto's configuration, its ACL, and certificates or passwords."""
    from broker import install

    config = _serve_config(config_file, **flags)
    done = install.init(config, force=force, new_passwords=new_passwords)
    console().print(table(("file", ""), [(item.path, item.state) for item in done]))
    if config.has_tls or config.coordinator is not None:
        _tell_of_coordinator(config)
    if config.has_tls:
        console().print("Enrol each device with: fedpi-broker enroll NAME")
    console().print(f"Run it with: fedpi-broker run --mosquitto --out {config.folder}")


def _tell_of_coordinator(config: "ServeConfig") -> None:
    from broker.install import coordinator_sections, is_coordinator_here
    from common.yaml_text import dump

    if is_coordinator_here(config):
        console().print(f"{config.coordinator} points at this broker now.")
        return
    console().print(f"{config.coordinator or 'The configuration of the coordinator'} needs these sections:")
    for line in dump(coordinator_sections(config)).splitlines():
        console().print(line)


@main.command()
@click.argument("name")
@config_option
@folder_option
@authority_option
@to_option
@click.option("--again", is_flag=True, help="Let a name return that was revoked.")
def enroll(name: str, config_file: Path | None, to: Path, again: bool, **flags: Any) -> None:
    """Write NAME.fedpi: all that a device, or the `monitor`, needs to join. It holds private keys."""
    from broker import enrolment

    path = enrolment.enroll(_serve_config(config_file, **flags), name, to, again=again)
    console().print(f"{path}: take it to {name} by a way that you trust, and delete it afterwards.")
    console().print(f"There: {_join(name)} {path.name}")


def _join(name: str) -> str:
    return "fedpi-coordinator join" if name == "monitor" else "fedpi-device join"


@main.command()
@click.argument("name")
@config_option
@folder_option
@authority_option
def revoke(name: str, config_file: Path | None, **flags: Any) -> None:
    """Shut NAME out at once, also where it is connected."""
    from broker import enrolment

    pid = enrolment.revoke(_serve_config(config_file, **flags), name)
    told = f"Mosquitto (process {pid}) knows" if pid else "Mosquitto does not run here; it knows when it starts"
    console().print(f"{name} is revoked: it can neither log in nor say or hear anything. {told}.")


@main.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@config_option
@folder_option
@authority_option
@to_option
@click.option("--all", "every", is_flag=True, help="Everybody's, however long they last.")
def renew(names: tuple[str, ...], config_file: Path | None, to: Path, every: bool, **flags: Any) -> None:
    """Renew certificates: of NAMEs, or all that end within 30 days, the broker's and the coordinator's included.

    A device keeps its keys: its file holds no secret, and `fedpi-device join` installs it.
    """
    from broker import enrolment

    done = enrolment.renew(_serve_config(config_file, **flags), names, to, every=every)
    for name, path in done:
        console().print(f"{name}: {'in use' if path is None else f'{path}, for: {_join(name)} {path.name}'}")
    if not done:
        console().print("No certificate ends within 30 days.")


@main.command()
@config_option
@folder_option
@authority_option
@to_option
@click.option("--switch", "mode", flag_value="switch", help="The second step: the coordinator takes the new key.")
@click.option("--stolen", "mode", flag_value="stolen", help="All the coordinator's keys, at once, trusted no longer.")
def rekey(config_file: Path | None, to: Path, mode: str | None, **flags: Any) -> None:
    """Replace the coordinator's signing key while the federation runs on, in two steps.

    First a new key is made, and a file for each device that trusts it beside the one in use. When every device
    has joined its file, --switch puts the new key in use. The files hold no secret.
    """
    from broker import rekeying

    config = _serve_config(config_file, **flags)
    if mode == "switch":
        rekeying.switch(config)
        console().print("The new signing key is in place, the earlier one is gone.")
        console().print("Restart the coordinator: systemctl restart fedpi-coordinator")
        return
    files = rekeying.prepare(config, to) if mode is None else rekeying.replace_stolen(config, to)
    for name, path in files:
        console().print(f"{name}: {path}, for: {_join(name)} {path.name}")
    if mode is None:
        console().print("When every device has joined its file: fedpi-broker rekey --switch")
    else:
        console().print("Restart both, so that no connection of the thief is left, then join every device:")
        console().print("systemctl restart fedpi-broker fedpi-coordinator")


@main.command()
@config_option
@folder_option
@authority_option
@json_option
def enrolled(config_file: Path | None, as_json: bool, **flags: Any) -> None:
    """List who is enrolled and until when, and who was revoked."""
    from broker import enrolment

    rows = enrolment.listed(_serve_config(config_file, **flags))
    if as_json:
        print_json(rows)
    else:
        console().print(table(("name", "role", "until", ""), [(r.name, r.role, r.until[:10], r.note) for r in rows]))


@main.command()
@config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--out", "folder", help="Folder for the broker's state, or the one that `init` wrote.")
@click.option("--mosquitto", "kind", flag_value="mosquitto", help="Run Mosquitto as `init` prepared it.")
@verbose_option
def run(config_file: Path | None, **flags: Any) -> None:
    """Run a broker in the foreground until Ctrl+C or SIGTERM."""
    config = _serve_config(config_file, **flags)
    if config.kind == "mosquitto":
        _run_mosquitto(config)
    else:
        _run_embedded(config)


def _run_embedded(config: "ServeConfig") -> None:
    from broker import embedded

    stopping = stop_on(signal.SIGINT, signal.SIGTERM)
    broker = embedded.start(config)
    out = console()
    out.print(f"broker ready on {config.host}: MQTT 5 on port {config.port}, 3.1.1 on {config.second_port}")
    out.print("no passwords, no access control: for demos and tests on this machine only", style="yellow")
    embedded.watch(broker, stopping)
    out.print("broker stopped")


def _run_mosquitto(config: "ServeConfig") -> None:
    """Become Mosquitto: its signals, logs and exit code are this command's."""
    from broker.accounts import find_program
    from broker.mosquitto import CONF, listeners
    from broker.ports import raise_file_limit, require_free
    from common.errors import ConfigError

    path = config.root / CONF
    if not path.is_file():
        raise ConfigError(f"{path} is missing; write it with: fedpi-broker init --out {config.folder}")
    program = find_program("mosquitto")
    for host, port in listeners(path.read_text(encoding="utf-8", errors="replace")):
        require_free(host, port)
    raise_file_limit()
    click.echo(f"running {program} -c {path}")
    sys.stdout.flush()
    os.execv(program, [program, "-c", str(path)])  # noqa: S606 - no shell wanted


@main.command()
@click.argument("address", metavar="[HOST:PORT]", required=False)
@config_option
@click.option("--username", help="User to log in as: the coordinator's, who may hold every topic.")
@click.option("--password-file", help="File that holds the password.")
@click.option("--protocol", type=click.Choice(["auto", "5", "3.1.1"]), help="Check with this MQTT version only.")
@json_option
def check(address: str | None, config_file: Path | None, as_json: bool, **flags: Any) -> None:
    """Find out what a live broker really does, and whether fedpi will run on it.

    With --config, any fedpi configuration with a `broker` section names the broker and the login.
    Exit code 0: fedpi runs on it; 1: it does not; 69: no broker there.
    """
    from broker import probe, report
    from broker.verdict import judge

    broker = _broker_config(address, config_file, **flags)
    with console(stderr=True).status("checking") as status:
        findings = probe.check(broker, lambda question: status.update(f"checking: {question}"))
    verdict = judge(findings)
    if as_json:
        print_json(report.document(findings, verdict))
    else:
        report.show(findings, verdict, console())
    sys.exit(0 if verdict.runs else 1)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Keep the flags that stand on the command line."""
    return {key: value for key, value in flags.items() if value not in (None, ())}


def _serve_config(config_file: Path | None, **flags: Any) -> "ServeConfig":
    """Read the file, if any, and let the flags beat it."""
    import msgspec

    from broker.settings import ServeConfig
    from common.config import convert, load

    config_file = config_file or _usual_config(is_needed="folder" not in _given(flags))
    config = load(config_file, ServeConfig) if config_file else ServeConfig()
    return convert(msgspec.to_builtins(config) | _given(flags), ServeConfig, "command line")


def _usual_config(*, is_needed: bool) -> Path | None:
    """Find the file of a fleet; the broker's own account, which may not look there, is told all that it needs."""
    from common.errors import ConfigError

    try:
        return USUAL_CONFIG if USUAL_CONFIG.exists() else None
    except PermissionError as error:
        if is_needed:
            raise ConfigError(f"{USUAL_CONFIG}: {error.strerror}; run this as root") from error
        return None


def _broker_config(address: str | None, config_file: Path | None, **flags: Any) -> "BrokerConfig":
    """Read the `broker` section of the file, if any, and let address and flags beat it."""
    import msgspec

    from broker.settings import BrokerSection
    from common.config import BrokerConfig, convert, load
    from common.errors import ConfigError, UsageError

    section = load(config_file, BrokerSection) if config_file else BrokerSection()
    if address is None and config_file is None:
        raise UsageError("name the broker to check: HOST:PORT, or a configuration with --config")
    if address is not None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f"{address!r} is not of the form HOST:PORT")
        flags |= {"host": host, "port": int(port)}
    try:
        return convert(msgspec.to_builtins(section.broker) | _given(flags), BrokerConfig, "command line")
    except ConfigError as error:
        raise UsageError(str(error)) from error
