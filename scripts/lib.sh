# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What every script here shares: where things lie, how to speak, how to make something once.
# Sourced, never run. A thing in the cache is made under a temporary name and renamed when it is
# whole, so that what has its final name is always complete.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

if [ -n "${DMREPL_CACHE:-}" ]; then
	cache=$DMREPL_CACHE
else
	cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/dm-replicate
fi

# What the tree and the cache are called inside the build root.
root_src=/src
root_cache=/cache

me=${0##*/}

say()  { printf '%s: %s\n' "$me" "$*" >&2; }
die()  { printf '%s: error: %s\n' "$me" "$1" >&2; shift; [ $# = 0 ] || printf '  %s\n' "$@" >&2; exit 1; }

in_root() { [ -e /etc/dm-replicate-root ]; }

# key FILE-OR-STRING...: a short name for "made by exactly this".
key() {
	local x
	for x in "$@"; do
		if [ -f "$x" ]; then cat "$x"; else printf '%s\n' "$x"; fi
	done | sha256sum | cut -c1-12
}

need_root() {
	[ "$(id -u)" = 0 ] || die "$1 needs root (chroot and mount)." \
		"Run:  sudo -E ${2:-$0}"
}

# enter_root SCRIPT ARGUMENT...: goes on inside the build root, as this script of the tree.
enter_root() {
	local script=$1
	shift
	in_root && return
	need_root "${script#scripts/} (it works in a build root)" "$script${*:+ $*}"
	exec "$top/scripts/in-root" "$root_src/$script" "$@"
}

# locked NAME: waits for, then holds until this process ends, the cache's lock of that name.
locked() {
	mkdir -p "$cache"
	exec 9>"$cache/$1.lock"
	if ! flock -n 9; then
		say "another run is making $1; waiting for it"
		flock 9
	fi
}

need_space() {
	local have
	have=$(df -Pm "$cache" | awk 'NR==2 {print $4}')
	[ "$have" -ge "$1" ] || die "$cache has $have MiB free, $2 needs about $1 MiB." \
		"Free some space, or set DMREPL_CACHE= to a folder on a larger disk."
}
