"""Draw docs/watch.png: the screen of `fedpi-coordinator watch` while a federation of five devices runs here.

The devices train the small CNN on drawn images; rpi5 is given a limit for free disk that nothing reaches, so that it
sits rounds out. Needs Mosquitto and Chromium.
"""

import subprocess
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI

from common.config import load
from coordinator.config import WatchConfig
from coordinator.dataset.synthetic import draw_slices
from coordinator.rehearsal.federation import Federation
from coordinator.screen import draw
from coordinator.spectator import spectate
from coordinator.watching import Picture

ROWS, COLUMNS = 26, 80
EXAMPLES = {"rpi1": 40, "rpi2": 64, "rpi3": 24, "rpi4": 96, "rpi5": 40}
SECONDS = 240.0
ROUNDS = 7
PAGE = '<body style="margin:0"><style>svg{{display:block;width:{width}px}}</style>{svg}</body>'
WIDTH, RATIO, COLOURS = 994, 0.617, 64
CHROMIUM = [
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-device-scale-factor=1.5",
]


def start(folder: Path, federation: Federation) -> None:
    """Start everything, and ask for rounds."""
    federation.start_broker("mosquitto")
    training = {"epochs": 12, "batch_size": 8, "learning_rate": 0.005}
    draw_slices(folder / "images/coordinator", 40, 0, size=64)
    federation.start_coordinator(
        {
            "model": {"name": "simple_cnn", "options": {"image_size": 48}},
            "initial": {"source": "train", "epochs": 1},
            "data": {"images": str(folder / "images/coordinator")},
            "training": training,
            "round": {"goal": 4, "minimum": 3, "selection_s": 60, "deadline_s": 120},
        }
    )
    for seed, (device, count) in enumerate(EXAMPLES.items(), 1):
        place = folder / "images" / device
        draw_slices(place, count, seed, size=64)
        health = {"health": {"min_disk_mb": 10_000_000}} if device == "rpi5" else {}
        data = {"images": str(place), "unseen": str(folder / "images/coordinator")}
        federation.start_device(device, {"data": data, "serving": {"process": "off"}, **health})
    store = federation.open_store()
    federation.wait_for_devices(store, len(EXAMPLES), 120.0)
    store.ask_for(ROUNDS)


def richest(config: Path) -> Picture:
    """Look on until the last round; return the picture of it that shows most of what a screen can show."""
    best, best_score, end = None, -1.0, time.monotonic() + SECONDS
    for glimpse in spectate(load(config, WatchConfig), SECONDS):
        picture = glimpse.picture
        last = max((row.round for row in picture.past.rounds), default=0) if picture.past else 0
        if last >= ROUNDS or time.monotonic() > end:
            break
        members = picture.members.members if picture.members else ()
        standings = {member.standing for member in members}
        half = sum(0.2 < (device.trained or 0) < 0.9 for device in picture.devices.values())
        score = len(standings) + half / 2 + last
        if members and score >= best_score:
            best, best_score = picture, score
    if best is None:
        sys.exit("nothing was seen")
    return best


def render(picture: Picture, target: Path) -> None:
    """Draw the screen as a terminal of 80 columns does, as a PNG."""
    console = Console(file=StringIO(), record=True, width=COLUMNS, force_terminal=True, color_system="truecolor")
    console.print(draw(picture, ROWS, COLUMNS))
    svg = console.export_svg(title="fedpi-coordinator watch", theme=MONOKAI, font_aspect_ratio=RATIO)
    svg = svg.replace("Fira Code", "DejaVu Sans Mono")
    view = svg.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    height = round(float(view[1]) * WIDTH / float(view[0]))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "watch.html")
        page.write_text(PAGE.format(svg=svg, width=WIDTH), encoding="utf-8")
        words = [*CHROMIUM, f"--window-size={WIDTH},{height}", f"--screenshot={target}", page.as_uri()]
        subprocess.run(words, check=True, capture_output=True)
    with Image.open(target) as image:
        image.convert("RGB").quantize(COLOURS).save(target, optimize=True)


def main() -> None:
    """Run the federation, look on, draw."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Federation(folder) as federation:
            start(folder, federation)
            picture = richest(federation.config("coordinator"))
    render(picture, Path("docs/watch.png").absolute())


if __name__ == "__main__":
    main()
