#!/usr/bin/env bash
# tools/setup.sh PURPOSE... - installs the Debian packages of requirements/debian.txt that these purposes need, after naming them.
#
# Where it may not (not root, or INSTALL=no in the environment), it says in one paragraph what will not be run and the command that
# changes that, and goes on; without python3-venv nothing can be run, so it ends with 1. Prints nothing where nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
[ $# -gt 0 ] || { sed -n 2p "$0" >&2; exit 2; }

present() { # program
    case $1 in
        ensurepip) "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

# Give the first of a package's alternatives that the archive has; the first of all where it has none.
available() { # package|package
    local name
    for name in ${1//|/ }; do
        if [ -n "$(apt-cache madison "${name%%,*}" 2>/dev/null)" ]; then echo "$name"; return; fi
    done
    echo "${1%%|*}"
}

purposes=" $* "
packages=() losses=() venv_missing=no
while read -r purpose program package loss; do
    case $purpose in '' | '#'*) continue ;; esac
    [[ $purposes == *" $purpose "* ]] || continue
    present "$program" && continue
    [ "$purpose" != venv ] || venv_missing=yes
    packages+=("$package")
    losses+=("$loss")
done < requirements/debian.txt
if [ "$(id -u)" != 0 ] && [[ $purposes == *" test "* ]]; then
    losses+=("the tests that mount, or that change users (they need root)")
fi
[ ${#losses[@]} -gt 0 ] || exit 0

list() { printf '%s\n' "$@" | awk '!seen[$0]++' | paste -sd'#' | sed 's/#/, /g'; }

if [ "${INSTALL:-yes}" = no ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    names=$(for package in "${packages[@]}"; do echo "${package%%|*}"; done | tr , '\n' | sort -u | paste -sd' ')
    if ! command -v apt-get >/dev/null; then remedy="install what your system calls $names"
    elif [ "$(id -u)" != 0 ]; then remedy="sudo make ${MAKE_TARGET:-test}"
    else remedy="make ${MAKE_TARGET:-test} without INSTALL=no, which installs $names"; fi
    if [ $venv_missing = yes ]; then
        echo "Nothing can be run without Debian's package python3-venv: $remedy" >&2
        exit 1
    fi
    echo "Will not be run: $(list "${losses[@]}"). The last line counts them as skipped. To run them too: $remedy"
    exit 0
fi

# Only one at a time, and an archive's list is read anew where there is none.
exec 9>"${TMPDIR:-/tmp}/dumpagent-setup.lock"
flock 9
[ -n "$(apt-cache madison bash 2>/dev/null)" ] || apt-get update -qq
names=()
for package in "${packages[@]}"; do
    IFS=, read -ra parts <<< "$(available "$package")"
    names+=("${parts[@]}")
done
mapfile -t names < <(printf '%s\n' "${names[@]}" | sort -u)
install=(apt-get install -y --no-install-recommends)
size=$("${install[@]}" -o Debug::NoLocking=1 --assume-no "${names[@]}" 2>/dev/null | grep -E 'Need to get|disk space' | paste -sd' ' || true)
echo "Installing Debian packages for the tests: ${names[*]}. $size (INSTALL=no leaves them out.)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A list that is older than the archive names files that are gone, so it is read anew once.
if ! DEBIAN_FRONTEND=noninteractive "${install[@]}" -o Dpkg::Use-Pty=0 -q "${names[@]}" > "$log" 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${install[@]}" -o Dpkg::Use-Pty=0 -q "${names[@]}" > "$log" 2>&1 || {
        tail -5 "$log" >&2
        echo "The packages could not be installed. Go on without them: make test INSTALL=no" >&2
        exit 1
    }
fi
