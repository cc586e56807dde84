"""A federation as a tree of copied images, in the layout of fedpi's first forerunner.

    main_data.csv  rasp1_data.csv  rasp1_unseen.csv  ...
    data/main/yes  data/rasp1/yes  data/rasp1_unseen/yes  ...

Each CSV (`file,label`) names its files relative to itself; `common.learning.layouts` finds a site's parts again.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import WorkError
from common.learning.folders import Labelled
from common.learning.label_csv import write_label_csv

MAIN = "main"
COORDINATOR = "coordinator"


def write_folders(out: Path, parts: Mapping[str, Sequence[Labelled]], label_names: Sequence[str]) -> None:
    """Copy the images of every part below `out/data` and write the CSVs. The coordinator's part is `main`.

    What an earlier split left in `out/data` goes first. Raises WorkError where `out` cannot be written.
    """
    try:
        shutil.rmtree(out / "data", ignore_errors=True)
        for name, items in parts.items():
            part = MAIN if name == COORDINATOR else name
            rows = [(_copy(out, part, item, label_names), label_names[item.label]) for item in items]
            write_label_csv(out / f"{part if part.endswith('_unseen') else part + '_data'}.csv", rows)
    except OSError as error:
        raise WorkError(f"{error.filename or out}: cannot copy the images: {error.strerror}") from error


def _copy(out: Path, part: str, item: Labelled, label_names: Sequence[str]) -> str:
    """Copy one image; returns its name relative to `out`. Folders within a label's folder become part of the name."""
    below = item.name.split("/")[1:] if "/" in item.name else [item.name]
    name = f"data/{part}/{label_names[item.label]}/{'_'.join(below)}"
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(item.path, target)
    return name
