"""The coordinator of fedpi: opens rounds, collects updates, averages them into the next global model."""
