#!/usr/bin/env bash
# real.sh: what the tests marked adbd, sshd, postgres and browser talk to, on a Debian machine.
#
# Installs by apt what is missing, without starting or enabling any service, and unpacks Debian's
# own adbd (an Android device's side of adb) with its libraries into
# ${XDG_CACHE_HOME:-~/.cache}/phonenas/adbd-trixie. What is there is left alone: run it again at
# any time. Without root it asks sudo, and only where something is to be installed.
set -euo pipefail
umask 022

readonly SUITE=trixie  # the first Debian that packages adbd
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/phonenas
readonly ADBD=$CACHE/adbd-$SUITE
readonly PATIENCE=(timeout --kill-after=10 900)
readonly APT=(-qq -o Acquire::Retries=3 -o Acquire::http::Timeout=60 -o Acquire::https::Timeout=60
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)

fail() {
    echo "real.sh: $*" >&2
    exit 1
}

# -- what apt installs ---------------------------------------------------------------------------

missing=()
need() { # PACKAGE PROGRAM: programs of the administrator are in no user's PATH
    PATH=$PATH:/usr/sbin:/sbin command -v "$2" >/dev/null 2>&1 || missing+=("$1")
}
need adb adb
need openssh-client ssh
need openssh-server sshd
need util-linux unshare
need chromium chromium
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)

root=() # what a command that needs root is led by
undo=() # files that are there only while something is installed

quietly() { # what it says is shown if it fails
    local said
    said=$("$@" 2>&1 </dev/null) || fail "$* failed:"$'\n'"$said"
}

for_now() { # FILE MODE TEXT: a file for the time of the installation; one that is there stays
    if [ ! -e "$1" ]; then
        undo+=("$1")
        "${root[@]}" mkdir -p "${1%/*}"
        printf '%s\n' "$3" | "${root[@]}" tee "$1" >/dev/null
        "${root[@]}" chmod "$2" "$1"
    fi
}

restore() {
    [ ${#undo[@]} = 0 ] || "${root[@]}" rm -f -- "${undo[@]}"
    undo=()
}

not_at_boot() { # SERVICE
    if command -v systemctl >/dev/null; then
        quietly "${root[@]}" systemctl --quiet disable "$1.service"
    else
        quietly "${root[@]}" update-rc.d "$1" disable
    fi
}

install_missing() {
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "not root, and there is no sudo. As root:  apt-get install ${missing[*]}"
        root=(sudo)
    fi
    trap restore EXIT
    # Debian's own switch for "install, but start nothing".
    for_now /usr/sbin/policy-rc.d 755 $'#!/bin/sh\nexit 101'
    # No cluster of the system's: the tests make one of their own.
    [[ " ${missing[*]} " != *" postgresql "* ]] ||
        for_now /etc/postgresql-common/createcluster.d/phonenas.conf 644 'create_main_cluster = false'
    quietly "${PATIENCE[@]}" "${root[@]}" apt-get update "${APT[@]}"
    quietly "${PATIENCE[@]}" "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install "${APT[@]}" --yes --no-install-recommends -- "${missing[@]}"
    # Installed for the tests means not started at the next boot either.
    local package
    for package in "${missing[@]}"; do
        case $package in
        openssh-server) not_at_boot ssh ;;
        postgresql) not_at_boot postgresql ;;
        esac
    done
    restore
    trap - EXIT
}

# -- adbd ----------------------------------------------------------------------------------------

sources() { # this machine's own sources of its own release, with the suite changed
    local codename=$1 parts=/etc/apt/sources.list.d
    local ours="^($codename|oldstable|stable|testing|unstable|sid)\$"
    for file in "$parts"/*.sources; do
        [ -e "$file" ] || continue
        awk -v ours="$ours" -v suite="$SUITE" '
            function flush() {
                if (deb && suited && on) printf "%sSuites: %s\nComponents: main\n\n", kept, suite
                kept = ""; deb = suited = skip = 0; on = 1
            }
            BEGIN { on = 1 }
            /^[[:space:]]*$/ { flush(); next }
            /^#/ { next }
            /^[[:space:]]/ { if (!skip) kept = kept $0 "\n"; next }
            {
                field = tolower($1); skip = 0
                if (field == "types:") { for (i = 2; i <= NF; i++) if ($i == "deb") deb = 1
                    kept = kept "Types: deb\n"; skip = 1 }
                else if (field == "suites:") { for (i = 2; i <= NF; i++) if ($i ~ ours) suited = 1
                    skip = 1 }
                else if (field == "components:") skip = 1
                else if (field == "enabled:") { if (tolower($2) ~ /^(no|false|0)$/) on = 0 }
                else kept = kept $0 "\n"
            }
            END { flush() }' "$file" >>"$2.sources"
    done
    for file in /etc/apt/sources.list "$parts"/*.list; do
        [ -e "$file" ] || continue
        awk -v ours="$ours" -v suite="$SUITE" '
            $1 == "deb" {
                at = 2  # options in brackets may hold blanks
                if ($2 ~ /^\[/) { while (at <= NF && $at !~ /\]$/) at++; at++ }
                if ($(at + 1) !~ ours) next
                line = $1
                for (i = 2; i <= at; i++) line = line " " $i
                print line, suite, "main"
            }' "$file" >>"$2.list"
    done
}

fetch_adbd() {
    local release work
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "${ID:-} ${VERSION_CODENAME:-}")
    [[ $release == debian\ * ]] || fail "adbd comes from Debian's packages; this is no Debian"
    # Not under the cache: apt downloads as a user who may not enter a private home.
    work=$(mktemp -d)
    trap 'rm -rf -- "$work" "$ADBD.$$"' EXIT
    chmod 755 "$work"
    mkdir -p "$work"/{etc/parts,etc/none.d,state/lists/partial,cache/archives/partial}
    # Nothing counts as installed, so that all that adbd needs is downloaded, the loader and the C
    # library among it.
    : >"$work/state/status"
    sources "${release#debian }" "$work/etc/parts/$SUITE"
    grep -qs . "$work"/etc/parts/* || fail "no source of $release in /etc/apt to take $SUITE from"
    cat >"$work/apt.conf" <<CONF
Dir::Etc::SourceList "$work/etc/none";
Dir::Etc::SourceParts "$work/etc/parts";
Dir::Etc::Preferences "$work/etc/none";
Dir::Etc::PreferencesParts "$work/etc/none.d";
Dir::State "$work/state";
Dir::State::Status "$work/state/status";
Dir::Cache "$work/cache";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
CONF
    # A source that has no such suite fails here, and does not matter if another has it.
    "${PATIENCE[@]}" apt-get -c "$work/apt.conf" update "${APT[@]}" >"$work/said" 2>&1 </dev/null || true
    "${PATIENCE[@]}" apt-get -c "$work/apt.conf" install "${APT[@]}" --yes --download-only \
        --no-install-recommends -- adbd >>"$work/said" 2>&1 </dev/null ||
        fail "adbd of $SUITE cannot be downloaded:"$'\n'"$(cat "$work/said")"
    mkdir -p "$CACHE" "$ADBD.$$"
    for package in "$work"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$ADBD.$$"
    done
    # Whole or not at all; who comes second leaves the first one's.
    mv -T "$ADBD.$$" "$ADBD" 2>/dev/null || [ -d "$ADBD" ] || fail "$ADBD cannot be made"
    rm -rf -- "$work" "$ADBD.$$"
    trap - EXIT
}

[ ${#missing[@]} = 0 ] || install_missing
[ -d "$ADBD" ] || fetch_adbd
