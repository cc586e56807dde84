#!/usr/bin/env bash
# For install.sh: packages, accounts and folders. With `broker`, those of the broker too.
# Exit codes: 69 a package cannot be fetched, 78 this system will not do.
set -euo pipefail

readonly PROGRAMS=/opt/fedpi CONFIG=/etc/fedpi STATE=/var/lib/fedpi ACCOUNT=fedpi
HERE=$(dirname "$0")
has_broker=$([ "${1:-}" = broker ] && echo yes || true)

die() { local code=$1; shift; printf 'install.sh: %s\n' "$*" >&2; exit "$code"; }

missing=()
python3 -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
[ -z "$has_broker" ] || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
if ((${#missing[@]})); then
  echo "Installing ${missing[*]}"
  # A machine that was just switched on often installs its own updates: wait for that.
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq \
    "${missing[@]}" > /dev/null; } || die 69 "apt-get cannot install ${missing[*]}; look at what it says above"
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die 78 "python3 is $(python3 --version); fedpi needs 3.11 or later"
# Debian starts Mosquitto as soon as it is installed. fedpi has a unit of its own for it.
if [[ " ${missing[*]} " == *" mosquitto "* ]]; then
  systemctl disable --quiet mosquitto.service
  [ ! -d /run/systemd/system ] || systemctl stop mosquitto.service
fi

id "$ACCOUNT" > /dev/null 2>&1 ||
  useradd --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin "$ACCOUNT"
install -d -m 755 "$PROGRAMS"
install -d -o "$ACCOUNT" -g "$ACCOUNT" -m 700 "$STATE"
# Root writes the configuration, services only read it: what root creates in it belongs to their group.
install -d -o root -g "$ACCOUNT" -m 2750 "$CONFIG"
for role in coordinator device; do install -d -o "$ACCOUNT" -g "$ACCOUNT" -m 700 "$STATE/$role"; done
[ -z "$has_broker" ] || bash "$HERE/broker-account.sh" make
