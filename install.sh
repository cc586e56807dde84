#!/usr/bin/env bash
# Installs fedpi as services on Debian 12 and 13 and on 64-bit Raspberry Pi OS. Run it again to upgrade or to add a role.
[ -n "${BASH_VERSION:-}" ] || exec /bin/bash "$0" "$@" # where somebody types `sh install.sh`
set -euo pipefail
# Nothing depends on whose environment this is: that of su, of sudo with a mask of 077, of a job without a language.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
unset CDPATH TMPDIR PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX
umask 022

readonly PROGRAMS=/opt/fedpi CONFIG=/etc/fedpi STATE=/var/lib/fedpi UNITS=/etc/systemd/system ACCOUNT=fedpi
readonly CATALOG=/usr/local/lib/systemd/catalog/fedpi.catalog ALL_ROLES=(broker coordinator device inference)
readonly REQUIREMENTS=$CONFIG/requirements.txt
SOURCE=$(dirname "$(readlink -f "${BASH_SOURCE[0]:-$0}")") # of the clone, also where a link to this file is run
# As fedpi's own commands: 69 what is needed cannot be fetched, 70 the work failed, 78 this system will not do.
readonly USAGE=2 UNAVAILABLE=69 FAILED=70 NO_PERMISSION=77 WRONG_SYSTEM=78

usage() {
  cat <<'TEXT'
Usage: sudo ./install.sh ROLE... [--no-learning]
       sudo ./install.sh --roll-back
       sudo ./install.sh --uninstall [ROLE...] [--purge]

Roles:
  broker       Mosquitto, as `fedpi-broker init` prepares it
  coordinator  runs the rounds
  device       trains on this machine's images
  inference    serves the released model in a process of its own, with or without `device`

  --no-learning  without TensorFlow: a coordinator that only averages, a device with models of your own; give it again
                 at every upgrade
  --roll-back    goes back to what ran before the last upgrade; says what becomes of rounds since
  --uninstall    removes the roles named, or all; configuration and state stay
  --purge        with --uninstall of all roles: removes configuration, state and accounts too

What /etc/fedpi/requirements.txt asks for, for code of your own, is installed each time, from wheels only.
Programs go to /opt/fedpi, configuration to /etc/fedpi, state to /var/lib/fedpi, the broker's to /var/lib/fedpi-broker.
An upgrade is built beside what runs; if it fails, what ran runs on. pip heeds PIP_INDEX_URL and so on.
Exit codes: 0 done, 2 wrong use, 69 something cannot be fetched, 70 failed and undone, 77 not root, 78 wrong system.
TEXT
}

say() { printf '%s\n' "$*"; }
die() { local code=$1; shift; printf 'install.sh: %s\n' "$*" >&2; exit "$code"; }

# ---- what is asked for ------------------------------------------------------------------------

ROLES=() RUNNING=() TASK=install IS_PURGE=no HAS_LEARNING=yes

read_arguments() {
  while (($#)); do
    case $1 in
      broker | coordinator | device | inference) ROLES+=("$1") ;;
      --no-learning) HAS_LEARNING=no ;;
      --uninstall) TASK=uninstall ;;
      --roll-back) TASK=roll_back ;;
      --purge) IS_PURGE=yes ;;
      -h | --help) usage; exit 0 ;;
      *) die $USAGE "'$1' is no role and no option; roles are ${ALL_ROLES[*]}" ;;
    esac
    shift
  done
  [ $IS_PURGE = no ] || [ $TASK = uninstall ] || die $USAGE "--purge goes with --uninstall"
  case $TASK in
    install) ((${#ROLES[@]})) || { usage >&2; exit $USAGE; } ;;
    roll_back) ! ((${#ROLES[@]})) || die $USAGE "--roll-back goes back with every role; name none" ;;
    uninstall)
      [ $IS_PURGE = no ] || ! ((${#ROLES[@]})) || die $USAGE "--purge removes the configuration of every role; name none" ;;
  esac
}

require_system() {
  [ "$(id -u)" = 0 ] || die $NO_PERMISSION "this needs root; put sudo before it"
  bash "$SOURCE/systemd/system-check.sh" /etc/os-release /usr/lib/os-release || exit $WRONG_SYSTEM
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
running_units() {
  local role
  for role in $(installed_roles); do ! is_active "fedpi-$role" || printf '%s\n' "fedpi-$role.service"; done
}

extras() {
  local role found=()
  for role in $(installed_roles) "${ROLES[@]}"; do
    case $role in
      coordinator | device) found+=(inference); [ $HAS_LEARNING = no ] || found+=(learning) ;;
      inference) found+=(inference) ;;
    esac
    [ "$role" != coordinator ] || found+=(metrics tools)
  done
  printf '%s\n' "${found[@]}" | sort -u | paste -sd,
}

fingerprint() {
  (
    cd "$SOURCE"
    find broker common config coordinator device systemd fedpi.py pyproject.toml \
      -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum
    python3 --version
    extras
    cat "$REQUIREMENTS" 2> /dev/null || true
  ) | sha256sum | cut -c1-16
}

# ---- two slots: one runs, the other is built --------------------------------------------------

current_slot() { readlink "$PROGRAMS/current" || true; }
other_slot() { if [ "$(current_slot)" = a ]; then say b; else say a; fi; }
has_build() { [ "$(cat "$PROGRAMS/$1/built" 2> /dev/null)" = "$2" ]; }

build() {
  local slot=$PROGRAMS/$1 need_mb=900 free_mb wanted packages
  wanted=$(extras)
  packages=("$slot/build${wanted:+[$wanted]}")
  [ ! -e "$REQUIREMENTS" ] || packages+=(--requirement "$REQUIREMENTS")
  [[ $wanted != *learning* ]] || need_mb=3500
  rm -rf "$slot"
  free_mb=$(df --output=avail -m "$PROGRAMS" | tail -1)
  ((free_mb >= need_mb)) || die $FAILED "$PROGRAMS needs $need_mb MB of free space and has $free_mb; make room"
  say "Installing programs to $slot"
  mkdir -p "$slot/build"
  TMPDIR=$slot/build python3 -m venv "$slot"
  # A copy: building leaves files behind, and the clone belongs to its user.
  (cd "$SOURCE" && cp -r --parents broker common config coordinator device systemd fedpi.py pyproject.toml README.md LICENSE \
    "$slot/build/")
  # Wheels only: a Pi shall compile nothing. /tmp may be a small file system in memory, or one that runs no programs.
  TMPDIR=$slot/build "$slot/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-user \
    --only-binary :all: "${packages[@]}" || {
    rm -rf "$slot"
    die $UNAVAILABLE "pip cannot install fedpi${packages[2]:+ with what $REQUIREMENTS asks for}; look at what it says above"
  }
  rm -rf "$slot/build"
  cp -r "$SOURCE/systemd" "$SOURCE/config" "$slot/"
}

# The self-check, before anything is switched: all that a role loads can be loaded.
loads() {
  local slot=$PROGRAMS/$1 role told
  told=$("$slot/bin/pip" check) || { say "$told" >&2; return 1; }
  for role in $(installed_roles) "${ROLES[@]}"; do
    case $role in
      broker) "$slot/bin/fedpi-broker" --help > /dev/null ;;
      coordinator) "$slot/bin/python" -P -c 'import coordinator.cli, coordinator.service' ;;
      device) "$slot/bin/python" -P -c 'import device.cli, device.daemon, device.runner' ;;
      inference) "$slot/bin/python" -P -c 'from device import inference, serving; inference.find_interpreter()' ;;
    esac || return 1
  done
  [[ $(extras) != *learning* ]] || TF_CPP_MIN_LOG_LEVEL=3 "$slot/bin/python" -P -c 'import common.learning.keras_learner'
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
  install -d /usr/local/bin
  for name in broker coordinator device; do
    ln -sfn "$PROGRAMS/current/bin/fedpi-$name" "/usr/local/bin/fedpi-$name"
  done
}

restart() { bash "$SOURCE/systemd/restart.sh" "$@"; }

# A version may bring the coordinator's journal to a form of its own, and it lets models go: both are kept, as one.
# What ran is started again, whatever happens from here on.
keep_state() {
  [ -e "$UNITS/fedpi-coordinator.service" ] || return 0
  trap start_again EXIT
  ! is_active fedpi-coordinator || systemctl stop fedpi-coordinator.service
  python3 -I "$SOURCE/systemd/coordinator_state.py" keep "$STATE" ||
    die $FAILED "journal and models cannot be kept (see above); nothing was changed"
}

start_again() { ! ((${#RUNNING[@]})) || systemctl start --no-block "${RUNNING[@]}"; }

# From the version of one slot to that of the other, without starting anything.
switch_to() {
  local role all
  mapfile -t all < <({ installed_roles; printf '%s\n' "${ROLES[@]}"; } | sort -u | sed '/^$/d')
  install_units "$1" "${all[@]}"
  point_to "$1"
  for role in "${all[@]}"; do systemctl enable --quiet "fedpi-$role.service" "fedpi-$role.path"; done
}

# Back to the version of slot $1, which ran before, with journal and models that it can read.
switch_back() {
  ROLES=()
  ! ((${#RUNNING[@]})) || systemctl stop "${RUNNING[@]}"
  python3 -I "$SOURCE/systemd/coordinator_state.py" back "$STATE" ||
    say "Journal and models stay as they are (see above); those of before the upgrade are in $STATE/before-upgrade."
  broker_account back
  switch_to "$1"
}

# ---- the three things to do -------------------------------------------------------------------

install_roles() {
  local old new mark
  bash "$SOURCE/systemd/preparation.sh" "$(has_role broker && say broker)"
  old=$(current_slot) mark=$(fingerprint)
  if [ -n "$old" ] && has_build "$old" "$mark"; then
    new=$old
  else
    new=$(other_slot)
    if ! has_build "$new" "$mark"; then build "$new"; fi
    if ! loads "$new" || ! checks "$old" "$new"; then
      rm -rf "${PROGRAMS:?}/$new"
      die $FAILED "the new version's self-check failed (see above); nothing was changed"
    fi
    say "$mark" > "$PROGRAMS/$new/built"
    mapfile -t RUNNING < <(running_units)
    keep_state
  fi
  ! has_role broker || broker_account move
  switch_to "$new"
  ! ((${#RUNNING[@]})) || restart "${RUNNING[@]}" || give_up "$old" "$new"
  trap - EXIT
  rm -rf "$STATE/broker-before"
  start_new "${ROLES[@]}"
}

give_up() {
  say "Going back to what ran before"
  switch_back "$1"
  rm -rf "${PROGRAMS:?}/$2"
  restart "${RUNNING[@]}" || die $FAILED "what ran before does not start either: look at journalctl -u 'fedpi-*'"
  die $FAILED "the new version's self-check failed (see above); the earlier version runs on"
}

roll_back() {
  local earlier roles
  earlier=$(other_slot)
  [ -n "$(current_slot)" ] && [ -e "$PROGRAMS/$earlier/built" ] ||
    die $FAILED "there is no earlier version in $PROGRAMS; run install.sh in a clone of the one that you want"
  mapfile -t RUNNING < <(running_units)
  trap start_again EXIT
  switch_back "$earlier"
  ! ((${#RUNNING[@]})) || restart "${RUNNING[@]}" || die $FAILED "the earlier version does not start (see above)"
  trap - EXIT
  mapfile -t roles < <(installed_roles)
  start_new "${roles[@]}"
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
[ -e "$SOURCE/pyproject.toml" ] || die $USAGE "$SOURCE is no clone of fedpi; run the install.sh that is in one"
require_system
case $TASK in
  install) install_roles ;;
  roll_back) roll_back ;;
  uninstall) uninstall_roles ;;
esac
