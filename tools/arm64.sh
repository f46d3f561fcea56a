#!/usr/bin/env bash
# arm64.sh: what the tests marked qemu measure on, an emulated arm64 Linux, on a Debian machine.
#
# Unpacks Debian's qemu-user and its Python for arm64, and beside them the arm64 wheels of the
# runtimes as constraints.txt pins them, into ${XDG_CACHE_HOME:-~/.cache}/phonenas/arm64, where
# `python3` is the emulated one. Nothing is installed and no root is needed. What is there is left
# alone, unless other versions are pinned by now: run it again at any time.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

readonly SUITE=trixie  # qemu 10: the one of the release before crashes with ONNX Runtime
readonly GLIBC_MINOR=41  # of that suite: wheels for this 2.x and for older ones run
readonly CPU=cortex-a76  # the fast core of a phone of 2019, unless QEMU_CPU names another
readonly KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/phonenas
readonly ARM64=$CACHE/arm64
readonly NEW=$ARM64.new
readonly PATIENCE=(timeout --kill-after=10 900)
readonly APT=(-qq -o Acquire::Retries=3 -o Acquire::http::Timeout=60 -o Acquire::https::Timeout=60)

fail() {
    echo "arm64.sh: $*" >&2
    exit 1
}

quietly() { # what it says is shown if it fails
    local said
    said=$("$@" 2>&1 </dev/null) || fail "$* failed:"$'\n'"$said"
}

# -- Debian's packages ---------------------------------------------------------------------------

apt_configuration() { # FOLDER ARCHITECTURE: apt's own state and lists in there, for arm64 first
    local release codename
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "${ID:-} ${VERSION_CODENAME:-}")
    [[ $release == debian\ * ]] || fail "qemu comes from Debian's packages; this is no Debian"
    codename=${release#debian }
    mkdir -p "$1"/{etc/parts,etc/none.d,state/lists/partial,cache/archives/partial}
    : >"$1/state/status" # nothing counts as installed: all that Python needs is downloaded
    # Where this machine has its own release from, the suite is too; Debian's keys vouch for it.
    local suites="$codename|oldstable|stable|testing|unstable|sid"
    apt-get -o "Dir::State=$1/state" -o "Dir::Cache=$1/cache" update --print-uris |
        sed -nE "s#^'(.*/)dists/($suites)/InRelease'.*#\1#p" |
        sort -u | while read -r base; do
            printf '%s\n' 'Types: deb' "URIs: $base" "Suites: $SUITE" 'Components: main' \
                "Signed-By: $KEYS" ''
        done >"$1/etc/parts/$SUITE.sources"
    [ -s "$1/etc/parts/$SUITE.sources" ] ||
        fail "no source of $release in /etc/apt to take $SUITE from"
    cat >"$1/apt.conf" <<CONF
#clear APT::Architectures;
APT::Architecture "arm64";
APT::Architectures { "arm64"; "$2"; };
Dir::Etc::SourceList "$1/etc/none";
Dir::Etc::SourceParts "$1/etc/parts";
Dir::Etc::Preferences "$1/etc/none";
Dir::Etc::PreferencesParts "$1/etc/none.d";
Dir::State "$1/state";
Dir::State::Status "$1/state/status";
Dir::Cache "$1/cache";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
CONF
}

unpack() { # FOLDER: arm64's Python with its libraries, and qemu, which is static
    local native package
    native=$(dpkg --print-architecture)
    # Not under the cache: apt downloads as a user who may not enter a private home.
    work=$(mktemp -d)
    trap 'rm -rf -- "$work"' EXIT
    chmod 755 "$work"
    apt_configuration "$work" "$native"
    # A source that has no such suite fails here, and does not matter if another has it.
    local apt=("${PATIENCE[@]}" apt-get -c "$work/apt.conf" "${APT[@]}")
    "${apt[@]}" update >"$work/said" 2>&1 </dev/null || true
    "${apt[@]}" install --yes --download-only --no-install-recommends -- \
        python3 libstdc++6 "qemu-user:$native" >>"$work/said" 2>&1 </dev/null ||
        fail "Python and qemu of $SUITE cannot be downloaded:"$'\n'"$(cat "$work/said")"
    mkdir -p "$1"
    for package in "$work"/cache/archives/*.deb; do
        case ${package##*/} in
        # The other machines that it emulates are half a gigabyte.
        qemu-user_*) dpkg-deb --fsys-tarfile "$package" | tar -x -C "$1" ./usr/bin/qemu-aarch64 ;;
        *) dpkg-deb -x "$package" "$1" ;;
        esac
    done
    [ -e "$1/lib" ] || ln -s usr/lib "$1/lib" # where programs look for their loader
    rm -rf -- "$work"
    trap - EXIT
}

# -- wheels --------------------------------------------------------------------------------------

wheels() { # FOLDER VERSION PIN...
    local folder=$1 version=$2 python minor platforms=(--platform manylinux2014_aarch64)
    shift 2
    for python in python3 .venv/bin/python ''; do
        ! "${python:-false}" -m pip --version >/dev/null 2>&1 || break
    done
    [ -n "$python" ] || fail "neither python3 nor .venv/bin/python has pip"
    for ((minor = 17; minor <= GLIBC_MINOR; minor++)); do
        platforms+=(--platform "manylinux_2_${minor}_aarch64")
    done
    # Without what the packages name besides: an engine imports none of it.
    quietly "${PATIENCE[@]}" "$python" -m pip --disable-pip-version-check --no-input \
        --retries 3 --timeout 60 install --quiet --no-compile --no-deps --only-binary=:all: \
        --implementation cp --python-version "$version" "${platforms[@]}" --target "$folder" -- "$@"
}

# -- all of it -----------------------------------------------------------------------------------

make_all() { # PIN...
    local version
    rm -rf -- "$NEW"
    unpack "$NEW/root"
    version=$(readlink "$NEW/root/usr/bin/python3")
    wheels "$NEW/site" "${version#python}" "$@"
    cat >"$NEW/python3" <<SH
#!/bin/sh
# Python on an emulated arm64 Linux, with the runtimes to measure.
here=\$(dirname "\$0")
export PYTHONPATH="\$here/site" QEMU_CPU="\${QEMU_CPU:-$CPU}"
exec "\$here/root/usr/bin/qemu-aarch64" -L "\$here/root" "\$here/root/usr/bin/python3" "\$@"
SH
    chmod 755 "$NEW/python3"
    # It works, or it is not there. This also compiles what is imported, once and for all.
    quietly "${PATIENCE[@]}" "$NEW/python3" -c \
        'import resource, numpy, onnxruntime, ai_edge_litert.interpreter'
    {
        echo "$wanted"
        "$NEW/python3" -c 'import platform as p; print(p.python_version(), "for", p.machine())'
        "$NEW/root/usr/bin/qemu-aarch64" --version | sed -nE '1s/.* version ([^ ]+).*/\1/p'
    } >"$NEW/made"
    rm -rf -- "$ARM64"
    mv -T "$NEW" "$ARM64"
}

mapfile -t pins < <(grep -E '^(numpy|onnxruntime|ai-edge-litert)==' constraints.txt)
[ ${#pins[@]} = 3 ] || fail "constraints.txt does not pin numpy, onnxruntime and ai-edge-litert"
wanted="${pins[*]} of $SUITE on $CPU"
mkdir -p "$CACHE"
exec 9>"$ARM64.lock"
flock --timeout 1800 9 || fail "another one is at work for half an hour already: $ARM64.lock"
[ "$(sed -n 1p "$ARM64/made" 2>/dev/null)" = "$wanted" ] || make_all "${pins[@]}"
mapfile -t made <"$ARM64/made"
echo "$ARM64: Python ${made[1]} under qemu ${made[2]}, with ${pins[*]}"
