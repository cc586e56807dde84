#!/usr/bin/env bash
# For install.sh: whether this system will do. One sentence and exit code 78 where it will not.
# Takes files like /etc/os-release; the first that can be read counts.
set -euo pipefail

die() { printf 'install.sh: %s\n' "$*" >&2; exit 78; }

ID='' ID_LIKE='' VERSION_ID=''
for file in "$@"; do
  # shellcheck source=/dev/null
  [ ! -r "$file" ] || { . "$file"; break; }
done
# A system may lack the file, and testing and unstable have no VERSION_ID: what fedpi needs is looked for below.
[ -n "$ID" ] || ! command -v dpkg > /dev/null || ID=debian
[[ " $ID $ID_LIKE " == *" debian "* ]] || die "this is no Debian and no Raspberry Pi OS, but '${ID:-without a name}'"
if [[ $ID =~ ^(debian|raspbian)$ && $VERSION_ID =~ ^[0-9]+ ]] && ((BASH_REMATCH[0] < 12)); then
  die "Debian $VERSION_ID is too old; fedpi needs 12 or later"
fi
command -v systemctl > /dev/null || die "systemd is not installed here, and fedpi runs as its services"
architecture=$(dpkg --print-architecture)
[[ $architecture =~ ^(amd64|arm64)$ ]] || die "this system is $architecture; fedpi needs a 64-bit one, arm64 or amd64"
