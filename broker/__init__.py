"""fedpi's broker tools: start one, render its configuration, find out what a live one really does."""
