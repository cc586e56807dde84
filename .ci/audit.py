"""Look for known holes in what is installed; where no advisory service can be asked, say so in one sentence.

Fails where a hole is known.
"""

import json
import subprocess
import sys

COMMAND = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
OFFLINE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "NameResolutionError", "ServiceError")


def main() -> None:
    """Ask, and tell what was found."""
    asked = subprocess.run(COMMAND, check=False, capture_output=True, text=True)
    try:
        found = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        if any(word in asked.stderr for word in OFFLINE):
            print("Dependencies were not audited: no advisory service answers; run this again with a network.")
            return
        sys.exit(asked.stderr)
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
