"""Look for known holes in what is installed; where no advisory service can be asked, say so in one sentence.

Fails where a hole is known, and where the search itself is broken.
"""

import json
import re
import subprocess
import sys

COMMAND = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
SECONDS = 120
NETWORK = re.compile(
    r"ProxyError|SSLError|ConnectTimeout|ReadTimeout|NameResolutionError|ConnectionError|HTTPError|ServiceError"
)
"""What the last line of pip-audit names where the network, a proxy or the service is at fault."""


def main() -> None:
    """Ask, and tell what was found."""
    try:
        asked = subprocess.run(COMMAND, check=False, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        print(f"Dependencies were not audited: no advisory service answered within {SECONDS} s.")
        return
    try:
        found = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        said = asked.stderr.strip().splitlines() or ["it printed nothing"]
        if fault := NETWORK.search(said[-1]):
            print(f"Dependencies were not audited: no advisory service can be reached from here ({fault[0]}).")
            return
        sys.exit(f"Dependencies were not audited: pip-audit failed: {said[-1]}")
    audited = [item for item in found if "skip_reason" not in item]
    if not audited:
        print(f"Dependencies were not audited: the package index here has no advisories for any of {len(found)}.")
        return
    for item in audited:
        for hole in item["vulns"]:
            cure = ", ".join(hole["fix_versions"]) or "none yet"
            print(f"{item['name']} {item['version']}: {hole['id']}; mended in: {cure}")
    print(f"Audited {len(audited)} of {len(found)} dependencies.")
    sys.exit(1 if any(item["vulns"] for item in audited) else 0)


if __name__ == "__main__":
    main()
