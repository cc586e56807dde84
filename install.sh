#!/usr/bin/env bash
# Installs fedpi as services on Debian 12 and 13 and on 64-bit Raspberry Pi OS. Run it again to upgrade or to add a role.
set -euo pipefail

readonly PROGRAMS=/opt/fedpi CONFIG=/etc/fedpi STATE=/var/lib/fedpi UNITS=/etc/systemd/system ACCOUNT=fedpi
readonly CATALOG=/usr/local/lib/systemd/catalog/fedpi.catalog ALL_ROLES=(broker coordinator device inference)
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# As fedpi's own commands: 69 what is needed cannot be fetched, 70 the work failed, 78 this system will not do.
readonly USAGE=2 UNAVAILABLE=69 FAILED=70 NO_PERMISSION=77 WRONG_SYSTEM=78

usage() {
  cat <<'TEXT'
Usage: sudo ./install.sh ROLE... [--no-learning]
       sudo ./install.sh --uninstall [ROLE...] [--purge]

Roles:
  broker       Mosquitto, as `fedpi-broker init` prepares it
  coordinator  runs the rounds
  device       trains on this machine's images
  inference    serves the released model in a process of its own, with or without `device`

  --no-learning  without TensorFlow: a coordinator that only averages, a device with models of your own; give it again
                 at every upgrade
  --uninstall    removes the roles named, or all; configuration and state stay
  --purge        with --uninstall of all roles: removes configuration, state and accounts too

Programs go to /opt/fedpi, configuration to /etc/fedpi, state to /var/lib/fedpi, the broker's to /var/lib/fedpi-broker.
An upgrade is built beside what runs; if its self-check fails, what ran runs on. pip heeds PIP_INDEX_URL and so on.
Exit codes: 0 done, 2 wrong use, 69 something cannot be fetched, 70 failed and undone, 77 not root, 78 wrong system.
TEXT
}

say() { printf '%s\n' "$*"; }
die() { local code=$1; shift; printf 'install.sh: %s\n' "$*" >&2; exit "$code"; }

# ---- what is asked for ------------------------------------------------------------------------

ROLES=() IS_UNINSTALL=no IS_PURGE=no HAS_LEARNING=yes

read_arguments() {
  while (($#)); do
    case $1 in
      broker | coordinator | device | inference) ROLES+=("$1") ;;
      --no-learning) HAS_LEARNING=no ;;
      --uninstall) IS_UNINSTALL=yes ;;
      --purge) IS_PURGE=yes ;;
      -h | --help) usage; exit 0 ;;
      *) die $USAGE "'$1' is no role and no option; roles are ${ALL_ROLES[*]}" ;;
    esac
    shift
  done
  if [ $IS_UNINSTALL = no ]; then
    ((${#ROLES[@]})) || { usage >&2; exit $USAGE; }
    [ $IS_PURGE = no ] || die $USAGE "--purge goes with --uninstall"
  elif [ $IS_PURGE = yes ] && ((${#ROLES[@]})); then
    die $USAGE "--purge removes the configuration of every role; name none"
  fi
}

require_system() {
  [ "$(id -u)" = 0 ] || die $NO_PERMISSION "this needs root; run: sudo ./install.sh ${ROLES[*]}"
  local ID='' ID_LIKE='' VERSION_ID=0
  # shellcheck source=/dev/null
  . /etc/os-release
  [[ " $ID $ID_LIKE " == *" debian "* ]] || die $WRONG_SYSTEM "this is no Debian and no Raspberry Pi OS, but '$ID'"
  { [ "$ID" != debian ] && [ "$ID" != raspbian ]; } || [ "${VERSION_ID%%.*}" -ge 12 ] ||
    die $WRONG_SYSTEM "Debian $VERSION_ID is too old; fedpi needs 12 or later"
  [[ $(dpkg --print-architecture) =~ ^(amd64|arm64)$ ]] ||
    die $WRONG_SYSTEM "this system is $(dpkg --print-architecture); fedpi needs a 64-bit one, arm64 or amd64"
  exec 9> /run/fedpi-install.lock
  flock --nonblock 9 || die $FAILED "another install.sh runs; wait for it"
}

installed_roles() {
  local role
  for role in "${ALL_ROLES[@]}"; do [ ! -e "$UNITS/fedpi-$role.service" ] || printf '%s\n' "$role"; done
}

has_role() { [[ " $(installed_roles | paste -sd' ') ${ROLES[*]} " == *" $1 "* ]]; } # or will have it
broker_account() { bash "$SOURCE/systemd/broker-account.sh" "$1"; }
has_systemd() { [ -d /run/systemd/system ]; } # not so where an image is prepared in a chroot
is_active() { has_systemd && systemctl is-active --quiet "$1"; }

# ---- preparation ------------------------------------------------------------------------------

install_packages() {
  local missing=()
  python3 -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
  ! has_role broker || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
  if ((${#missing[@]})); then
    say "Installing ${missing[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" > /dev/null; } ||
      die $UNAVAILABLE "apt-get cannot install ${missing[*]}; look at what it says above"
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die $WRONG_SYSTEM "python3 is $(python3 --version); fedpi needs 3.11 or later"
  # Debian starts Mosquitto as soon as it is installed. fedpi has a unit of its own for it.
  if [[ " ${missing[*]} " == *" mosquitto "* ]]; then
    systemctl disable --quiet mosquitto.service
    ! has_systemd || systemctl stop mosquitto.service
  fi
}

make_accounts() {
  local role
  id "$ACCOUNT" > /dev/null 2>&1 ||
    useradd --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin "$ACCOUNT"
  install -d -m 755 "$PROGRAMS"
  install -d -o "$ACCOUNT" -g "$ACCOUNT" -m 700 "$STATE"
  # Root writes the configuration, services only read it: what root creates in it belongs to their group.
  install -d -o root -g "$ACCOUNT" -m 2750 "$CONFIG"
  for role in coordinator device; do install -d -o "$ACCOUNT" -g "$ACCOUNT" -m 700 "$STATE/$role"; done
  ! has_role broker || broker_account make
}

extras() {
  local role found=()
  for role in $(installed_roles) "${ROLES[@]}"; do
    case $role in
      coordinator | device) found+=(inference); [ $HAS_LEARNING = no ] || found+=(learning) ;;
      inference) found+=(inference) ;;
    esac
    [ "$role" != coordinator ] || found+=(metrics)
  done
  printf '%s\n' "${found[@]}" | sort -u | paste -sd,
}

fingerprint() {
  (
    cd "$SOURCE"
    find broker common config coordinator device systemd pyproject.toml -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum
    python3 --version
    extras
  ) | sha256sum | cut -c1-16
}

# ---- two slots: one runs, the other is built --------------------------------------------------

current_slot() { readlink "$PROGRAMS/current" || true; }
other_slot() { if [ "$(current_slot)" = a ]; then say b; else say a; fi; }
has_build() { [ "$(cat "$PROGRAMS/$1/built" 2> /dev/null)" = "$2" ]; }

build() {
  local slot=$PROGRAMS/$1 need_mb=600 free_mb wanted
  wanted=$(extras)
  [[ $wanted != *learning* ]] || need_mb=3500
  rm -rf "$slot"
  free_mb=$(df --output=avail -m "$PROGRAMS" | tail -1)
  ((free_mb >= need_mb)) || die $FAILED "$PROGRAMS needs $need_mb MB of free space and has $free_mb; make room"
  say "Installing programs to $slot"
  python3 -m venv "$slot"
  mkdir "$slot/build"
  # A copy: building leaves files behind, and the clone belongs to its user.
  (cd "$SOURCE" && cp -r --parents broker common coordinator device pyproject.toml README.md LICENSE "$slot/build/")
  # Wheels only: a Pi shall compile nothing. /tmp may be a small file system in memory.
  TMPDIR=$slot/build "$slot/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --only-binary :all: \
    "$slot/build${wanted:+[$wanted]}" || { rm -rf "$slot"; die $UNAVAILABLE "pip cannot install fedpi; look at what it says above"; }
  rm -rf "$slot/build"
  cp -r "$SOURCE/systemd" "$SOURCE/config" "$slot/"
}

# The self-check, before anything is switched: all that a role loads can be loaded.
loads() {
  local slot=$PROGRAMS/$1 role
  "$slot/bin/pip" check > /dev/null || return 1
  for role in $(installed_roles) "${ROLES[@]}"; do
    case $role in
      broker) "$slot/bin/fedpi-broker" --help > /dev/null ;;
      coordinator) "$slot/bin/python" -c 'import coordinator.cli, coordinator.service' ;;
      device) "$slot/bin/python" -c 'import device.cli, device.daemon, device.runner' ;;
      inference) "$slot/bin/python" -c 'from device import inference, serving; inference.find_interpreter()' ;;
    esac || return 1
  done
  [[ $(extras) != *learning* ]] || TF_CPP_MIN_LOG_LEVEL=3 "$slot/bin/python" -c 'import common.learning.keras_learner'
}

# The device's own check must not find more wrong than the version that runs finds.
checks() {
  local old=$1 new=$2 before=0 after=0 told
  [ -n "$old" ] && [ -e "$CONFIG/device.yaml" ] && [ -x "$PROGRAMS/$old/bin/fedpi-device" ] || return 0
  told=$("$PROGRAMS/$new/bin/fedpi-device" check --config "$CONFIG/device.yaml" 2>&1) || after=$?
  ((after)) || return 0
  "$PROGRAMS/$old/bin/fedpi-device" check --config "$CONFIG/device.yaml" > /dev/null 2>&1 ||
    before=$?
  ((after == before)) || { say "$told"; return 1; }
}

# ---- units ------------------------------------------------------------------------------------

drop_in() { install -D -m 644 "$1" "$UNITS/fedpi-$2.service.d/$3"; }

install_units() {
  local from=$PROGRAMS/$1/systemd role version; shift
  version=$(systemctl --version | awk 'NR == 1 { print int($2) }')
  for role in "$@"; do
    install -m 644 "$from/fedpi-$role.service" "$from/fedpi-$role.path" "$UNITS/"
    ((version < 254)) || drop_in "$from/backoff.conf" "$role" 10-backoff.conf
  done
  if [ -e "$UNITS/fedpi-inference.service" ]; then drop_in "$from/serving.conf" device 10-serving.conf; fi
  install -D -m 644 "$from/fedpi.catalog" "$CATALOG"
  journalctl --update-catalog
  ! has_systemd || systemctl daemon-reload
}

point_to() {
  local name
  ln -sfn "$1" "$PROGRAMS/current.new"
  mv -T "$PROGRAMS/current.new" "$PROGRAMS/current"
  for name in broker coordinator device; do
    ln -sfn "$PROGRAMS/current/bin/fedpi-$name" "/usr/local/bin/fedpi-$name"
  done
}

# Wait until a unit that was started runs and stays; a start that takes long (the initial model) is left to itself.
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

restart() {
  local unit
  systemctl reset-failed "$@"
  systemctl restart --no-block "$@"
  for unit in "$@"; do
    settles "$unit" || { journalctl --unit="$unit" --lines=5 --no-pager --output=cat >&2; return 1; }
  done
}

# A new version may bring the coordinator's journal to a form that the earlier one cannot read.
keep_journal() {
  rm -rf "$STATE/before-upgrade"
  is_active fedpi-coordinator && [ -e "$STATE/coordinator/journal.sqlite" ] || return 0
  systemctl stop fedpi-coordinator.service
  install -d -o "$ACCOUNT" -g "$ACCOUNT" -m 700 "$STATE/before-upgrade"
  cp -a "$STATE"/coordinator/journal.sqlite* "$STATE/before-upgrade/"
}

roll_back() {
  local old=$1 new=$2 roles; shift 2
  say "Going back to what ran before"
  systemctl stop "$@"
  if [ -d "$STATE/before-upgrade" ]; then
    rm -f "$STATE"/coordinator/journal.sqlite*
    cp -a "$STATE"/before-upgrade/* "$STATE/coordinator/"
  fi
  broker_account back
  point_to "$old"
  mapfile -t roles < <(installed_roles)
  install_units "$old" "${roles[@]}"
  rm -rf "${PROGRAMS:?}/$new"
  restart "$@" || say "What ran before does not start either: look at journalctl -u 'fedpi-*'"
  die $FAILED "the new version's self-check failed (see above); the earlier version runs on"
}

# ---- the two things to do ---------------------------------------------------------------------

install_roles() {
  local old new mark role all running=()
  install_packages
  make_accounts
  old=$(current_slot) mark=$(fingerprint)
  for role in $(installed_roles); do ! is_active "fedpi-$role" || running+=("fedpi-$role.service"); done
  if [ -n "$old" ] && has_build "$old" "$mark"; then
    new=$old
  else
    new=$(other_slot)
    build "$new"
    if ! loads "$new" || ! checks "$old" "$new"; then
      rm -rf "${PROGRAMS:?}/$new"
      die $FAILED "the new version's self-check failed (see above); nothing was changed"
    fi
    say "$mark" > "$PROGRAMS/$new/built"
  fi
  mapfile -t all < <({ installed_roles; printf '%s\n' "${ROLES[@]}"; } | sort -u)
  ! has_role broker || broker_account move
  install_units "$new" "${all[@]}"
  point_to "$new"
  for role in "${all[@]}"; do systemctl enable --quiet "fedpi-$role.service" "fedpi-$role.path"; done
  if has_systemd && [ "$new" != "$old" ] && ((${#running[@]})); then
    keep_journal
    restart "${running[@]}" || roll_back "$old" "$new" "${running[@]}"
  fi
  [ -z "$old" ] || [ "$old" = "$new" ] || rm -rf "${PROGRAMS:?}/$old"
  rm -rf "$STATE/broker-before"
  start_new "${ROLES[@]}"
}

start_new() {
  local role file
  for role in "$@"; do
    file=$(sed -n 's/^ConditionPathExists=//p' "$UNITS/fedpi-$role.service")
    ! has_systemd || systemctl start "fedpi-$role.path"
    if [ ! -e "$file" ]; then
      say "fedpi-$role is installed. It starts by itself as soon as there is $file."
    elif has_systemd; then
      is_active "fedpi-$role" || restart "fedpi-$role.service" ||
        die $FAILED "fedpi-$role does not start (see above); mend $file: it starts by itself when that changes"
      say "fedpi-$role runs. Its log: journalctl -u fedpi-$role"
    else
      say "fedpi-$role is installed and starts with the system."
    fi
  done
  warn_of_memory "$@"
}

warn_of_memory() {
  [[ " $* " == *" device "* ]] || return 0
  [ ! -e /sys/fs/cgroup/cgroup.controllers ] || grep -qw memory /sys/fs/cgroup/cgroup.controllers ||
    say "This kernel does not limit memory: add cgroup_enable=memory to /boot/firmware/cmdline.txt and restart."
}

uninstall_roles() {
  local role
  ((${#ROLES[@]})) || mapfile -t ROLES < <(installed_roles)
  for role in "${ROLES[@]}"; do
    [ -e "$UNITS/fedpi-$role.service" ] || continue
    ! has_systemd || systemctl stop "fedpi-$role.path" "fedpi-$role.service"
    systemctl disable --quiet "fedpi-$role.service" "fedpi-$role.path"
    rm -f "$UNITS/fedpi-$role".{service,path} "$UNITS/fedpi-$role.service.d/10-backoff.conf" # and no drop-in of others
    [ "$role" != inference ] || rm -f "$UNITS/fedpi-device.service.d/10-serving.conf"
    ! [ -d "$UNITS/fedpi-$role.service.d" ] || rmdir --ignore-fail-on-non-empty "$UNITS/fedpi-$role.service.d"
    say "fedpi-$role is removed."
  done
  if [ -z "$(installed_roles)" ]; then
    rm -rf "$PROGRAMS" /usr/local/bin/fedpi-{broker,coordinator,device} "$CATALOG"
    journalctl --update-catalog
    [ $IS_PURGE = yes ] || say "$CONFIG, $STATE and what begins so stay; --uninstall --purge removes them."
  fi
  if [ $IS_PURGE = yes ]; then
    rm -rf "$CONFIG" "$STATE" "$UNITS"/fedpi-*.service.d
    ! id "$ACCOUNT" > /dev/null 2>&1 || userdel "$ACCOUNT"
    broker_account remove
    say "Configuration, state and accounts are removed."
  fi
  ! has_systemd || systemctl daemon-reload
}

cd / # that everybody may read, and that stays
read_arguments "$@"
require_system
if [ $IS_UNINSTALL = yes ]; then uninstall_roles; else install_roles; fi
