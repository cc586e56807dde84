"""How many files and connections the process may have open: each update that is on its way takes two."""

import resource


def raise_limit() -> int:
    """Raise the limit to what the system allows, and return it: systemd and shells begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
