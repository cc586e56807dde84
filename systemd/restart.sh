#!/usr/bin/env bash
# For install.sh: starts units anew, and waits until each runs and stays. Exit code 1 where one does not: its last words
# are printed. A start that takes long (the initial model) is left to itself.
set -euo pipefail

settles() {
  local unit=$1 state steady=0
  for _ in $(seq 60); do
    state=$(systemctl show --value --property=ActiveState,SubState "$unit" | paste -sd/)
    case $state in
      active/running) ((++steady < 10)) || return 0 ;;
      failed/* | */auto-restart) return 1 ;;
      *) steady=0 ;;
    esac
    sleep 0.5
  done
  [[ $state == activating/* ]]
}

systemctl reset-failed "$@"
systemctl restart --no-block "$@"
for unit in "$@"; do
  settles "$unit" || { journalctl --unit="$unit" --lines=5 --no-pager --output=cat >&2; exit 1; }
done
