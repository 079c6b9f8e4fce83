# Sources and packages of Debian, as apt's signed lists have them, into a folder of ours: nothing is installed, the machine's own lists
# stay as they are, and it need not be root. Read in with `.` after serve.sh.
# shellcheck shell=sh

debian_lists() { # once for each cache
    needs apt-get=apt dpkg-source=dpkg-dev
    apt=$CACHE/apt
    export APT_CONFIG="$apt/apt.conf"
    [ ! -e "$apt/done" ] || return 0
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # nbd-tester-client of Debian 12 cannot be told an export's name on Unix sockets: Debian 13's can.
    for line in "deb deb-src:$release $release-backports" "deb-src:trixie"; do
        printf 'Types: %s\nURIs: http://deb.debian.org/debian\nSuites: %s\nComponents: main\n' "${line%%:*}" "${line#*:}"
        printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n'
    done >"$apt/debian.sources"
    cat >"$apt/apt.conf" <<END
Dir::Etc::sourcelist "$apt/debian.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Default-Release "$release-backports";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
END
    apt-get update -q >"$apt/log" 2>&1 || left_out "Debian's lists cannot be had: $(tail -n 1 "$apt/log")"
    touch "$apt/done"
}

debian_source() { # PACKAGE (with /SUITE or =VERSION) FOLDER: unpacked, as it was released
    [ ! -e "$CACHE/$2" ] || return 0
    debian_lists
    mkdir -p "$CACHE/sources"
    (cd "$CACHE/sources" && apt-get source -q --download-only --only-source "$1") >"$CACHE/sources/log" 2>&1 ||
        left_out "the source of $1 cannot be had: $(tail -n 1 "$CACHE/sources/log")"
    # apt has checked it against the lists.
    dpkg-source --no-check --skip-patches --extract "$(ls -t "$CACHE/sources/${1%%[/=]*}"_*.dsc | head -n 1)" "$CACHE/$2.part" >>"$CACHE/sources/log" 2>&1
    mv "$CACHE/$2.part" "$CACHE/$2"
}

debian_package() { # PACKAGE FOLDER: what is in it, unpacked there
    [ ! -e "$CACHE/$2" ] || return 0
    debian_lists
    mkdir -p "$CACHE/packages/$2"
    (cd "$CACHE/packages/$2" && apt-get download -q "$1") >"$CACHE/packages/log" 2>&1 ||
        left_out "the package $1 cannot be had: $(tail -n 1 "$CACHE/packages/log")"
    dpkg-deb --extract "$CACHE/packages/$2/"*.deb "$CACHE/$2.part"
    mv "$CACHE/$2.part" "$CACHE/$2"
}
