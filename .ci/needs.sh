#!/bin/sh
# needs.sh WHO PROGRAM:PACKAGE...  Install by apt the packages whose programs are missing, for WHO needs them.
# Where that cannot be done, one sentence says what to install, and the exit code is 1.
set -u
who=$1
shift
PATH=$PATH:/usr/local/sbin:/usr/sbin
missing=
for pair in "$@"; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0

refuse() {
  echo "$who: not installed here:$missing; $1, so let somebody with root type: apt-get install$missing" >&2
  exit 1
}

as_root=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null 2>&1 || refuse "you are not root and there is no sudo"
  sudo -v 2>/dev/null || refuse "you are not root and sudo refuses you"
  as_root=sudo
fi
command -v apt-get >/dev/null 2>&1 || refuse "there is no apt-get"
echo "$who: installing$missing"
# shellcheck disable=SC2086 # a list of words
if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq $missing; }; then
  refuse "apt-get failed"
fi
