#!/usr/bin/env bash
# For install.sh: the broker's own account and folder, so that who breaks into it finds nothing of the coordinator's.
#   make    the account, the folder and its first configuration
#   move    an earlier version's folder, which was the coordinator's account's, to there; it stays as broker-before
#   back    undoes that
#   remove  account and folder
set -euo pipefail

readonly ACCOUNT=fedpi-broker FOLDER=/var/lib/fedpi-broker EARLIER=/var/lib/fedpi/broker CONFIG=/etc/fedpi/broker.yaml

make() {
  id "$ACCOUNT" > /dev/null 2>&1 ||
    useradd --system --user-group --home-dir "$FOLDER" --no-create-home --shell /usr/sbin/nologin "$ACCOUNT"
  # The broker reads what root writes there, and writes below `data` only.
  install -d -o root -g "$ACCOUNT" -m 750 "$FOLDER"
  install -d -o "$ACCOUNT" -g "$ACCOUNT" -m 700 "$FOLDER/data"
  [ -e "$CONFIG" ] || install -m 640 "$(dirname "$0")/../config/broker-fleet.yaml" "$CONFIG"
}

move() {
  rm -rf "$EARLIER-before"
  [ -e "$EARLIER/mosquitto.conf" ] || return 0
  echo "The broker moves to the account $ACCOUNT and to $FOLDER"
  [ ! -d /run/systemd/system ] || systemctl stop fedpi-broker.service
  cp -a "$EARLIER/." "$FOLDER/"
  chown -R "root:$ACCOUNT" "$FOLDER"
  chmod 750 "$FOLDER"
  for own in data server.key passwords; do
    [ ! -e "$FOLDER/$own" ] || chown -R "$ACCOUNT:$ACCOUNT" "$FOLDER/$own"
  done
  sed -i "s|^user fedpi\$|user $ACCOUNT|; s|$EARLIER\>|$FOLDER|g" "$FOLDER/mosquitto.conf"
  sed -i "s|$EARLIER\>|$FOLDER|g" "$CONFIG"
  mv "$EARLIER" "$EARLIER-before"
}

back() {
  [ -d "$EARLIER-before" ] || return 0
  find "$FOLDER" -mindepth 1 -delete
  mv "$EARLIER-before" "$EARLIER"
  sed -i "s|$FOLDER\>|$EARLIER|g" "$CONFIG"
}

remove() {
  rm -rf "$FOLDER"
  ! id "$ACCOUNT" > /dev/null 2>&1 || userdel "$ACCOUNT"
}

"$1"
