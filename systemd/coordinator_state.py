"""For install.sh: the coordinator's journal and models, kept as one before an upgrade, put back as one.

    coordinator_state.py keep STATE   copies STATE/coordinator to STATE/before-upgrade
    coordinator_state.py back STATE   makes STATE/coordinator one that the earlier version can read

The coordinator must not run meanwhile. Nothing is deleted or replaced before what takes its place is read and compared.
Needs Python's own library only. Exit code 1 and one sentence where it cannot be done; then nothing is changed.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

JOURNAL = "journal.sqlite"
SPARE_BYTES = 50_000_000


class StateError(Exception):
    """Why a folder cannot be kept or put back."""


def keep(state: Path) -> None:
    """Copy the folder and verify the copy; only then lets the earlier copy go. Raises StateError, OSError."""
    live, kept = state / "coordinator", state / "before-upgrade"
    if not (live / JOURNAL).exists():
        return
    draft, earlier = state / "before-upgrade.new", state / "before-upgrade.old"
    if earlier.exists() and not kept.exists():  # a power cut between the two renames below
        earlier.rename(kept)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        look(live)
        _copy(live, draft)
    except (StateError, OSError):
        shutil.rmtree(draft, ignore_errors=True)
        raise
    os.sync()
    if kept.exists():
        kept.rename(earlier)
    draft.rename(kept)
    shutil.rmtree(earlier, ignore_errors=True)


def back(state: Path) -> str:
    """Leave the state as it is where the earlier version can read it, else put the kept one back; returns a sentence.

    What is put back is renamed, and so is what it takes the place of: neither is copied nor deleted.
    """
    live, kept = state / "coordinator", state / "before-upgrade"
    if not kept.exists():
        return ""
    form, rounds = look(kept)
    try:
        form_now, rounds_now = look(live)
    except StateError as error:
        form_now, rounds_now, reason = None, _committed(live), str(error)
    else:
        reason = "the earlier version cannot read the journal that the newer one wrote"
    news = [number for number in rounds_now if number not in rounds]
    since = f"Rounds that were committed since the upgrade: {', '.join(map(str, news)) or 'none'}. "
    if form_now == form:
        return f"{since}{'They stay: t' if news else 'T'}he earlier version reads journal and models as they are."
    undone = state / f"undone-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    live.rename(undone)
    kept.rename(live)
    os.sync()
    fate = "They are undone, and their numbers are used again. " if news else ""
    return (
        f"{since}{fate}Journal and models are those of before the upgrade again, because {reason}; those of afterwards "
        f"are in {undone}."
    )


def look(folder: Path) -> tuple[int, list[int]]:
    """Return the form of the journal and the rounds that are committed. Raises StateError for a damaged folder."""
    path = folder / JOURNAL
    try:
        # Opened for writing: SQLite takes its log into the file and removes it. As root it leaves the owner alone.
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as db:
            damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            form = int(db.execute("PRAGMA user_version").fetchone()[0])
            models = [row[0] for row in db.execute("SELECT value FROM facts WHERE name = 'global_model'")]
    except sqlite3.Error as error:
        raise StateError(f"{path} cannot be read ({error})") from error
    if damage != "ok":
        raise StateError(f"{path} is damaged ({damage})")
    for model in models:
        for part in ("body", "head"):
            if not (file := folder / "models" / f"{json.loads(model)['id']}.{part}").is_file():
                raise StateError(f"{file} is missing, the global model that the journal names")
    return form, _committed(folder)


def _committed(folder: Path) -> list[int]:
    try:
        with closing(sqlite3.connect(f"file:{folder / JOURNAL}?mode=rw", uri=True)) as db:
            return [row[0] for row in db.execute("SELECT round FROM rounds WHERE phase = 'committed' ORDER BY round")]
    except sqlite3.Error:  # damaged, or of a form to come
        return []


def _copy(source: Path, target: Path) -> None:
    """Copy with owners, modes and times, and compare every byte."""
    need, free = sum(path.lstat().st_size for path in source.rglob("*")), shutil.disk_usage(source).free
    if need + SPARE_BYTES > free:
        raise StateError(f"a copy of {source} takes {need // 10**6} MB, and {free // 10**6} MB are free; make room")
    done = subprocess.run(["cp", "--archive", source, target], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StateError(f"{source} cannot be copied: {done.stderr.strip()}")
    for path in (path for path in source.rglob("*") if path.is_file() and not path.is_symlink()):
        if _digest(path) != _digest(target / path.relative_to(source)):
            raise StateError(f"the copy of {path} differs from it")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


if __name__ == "__main__":
    try:
        said = {"keep": keep, "back": back}[sys.argv[1]](Path(sys.argv[2]))
    except (StateError, OSError) as error:
        sys.exit(f"install.sh: {error}")
    if said:
        sys.stdout.write(f"{said}\n")
