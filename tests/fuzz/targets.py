"""All kinds of input, with the number of inputs of a whole run."""

from tests.fuzz import configurations, images, label_tables, weight_files, wire
from tests.fuzz.target import Target

TARGETS = {
    target.name: target
    for target in (
        Target("images", 30_000, images.begin),
        Target("weights", 3_000, weight_files.begin),
        Target("messages", 1_000_000, wire.begin),
        Target("csv", 1_000, label_tables.begin),
        Target("yaml", 1_000, configurations.begin),
    )
}
