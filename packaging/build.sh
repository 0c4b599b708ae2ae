#!/usr/bin/env bash
# Builds the Debian and the RPM package into target/packages. `make packages` calls this, after the tools are installed and the man pages written.
#
#   PROFILE    cargo's profile of the program that is packed, by default release
#   RELEASE    release of the packages, by default 1
#   PACKAGER   "Name <address>" of the Debian package's maintainer
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$(tests/support/install.sh where)/bin:$PATH
readonly folder=target/packages profile=${PROFILE:-release} release=${RELEASE:-1}
say() { printf 'packages: %s\n' "$*"; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
maintainer=${PACKAGER:-$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)}
mkdir -p "$folder"
say "the program, profile $profile"
cargo build --profile "$profile" --locked --bin pgnorth
say "licence texts"
packaging/licences.py >"$folder/third-party-licences.txt"
cat >"$folder/changelog.Debian" <<CHANGELOG
pgnorth ($version-$release) stable; urgency=medium

  * What changed is in /usr/share/doc/pgnorth/changelog.gz.

 -- $maintainer  $(git log -1 --format=%cD)
CHANGELOG

# The same commit gives the same packages.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
deb=$folder/pgnorth_$version-${release}_$(dpkg --print-architecture).deb
rpm=$folder/pgnorth-$version-$release.$(uname -m).rpm
cargo deb --quiet --locked --no-build --strip --profile "$profile" --deb-version "$version-$release" --maintainer "$maintainer" --output "$deb"
# cargo-generate-rpm packs the program as it is in that folder, so this puts a copy without debug information there.
mkdir -p "$folder/rpm/release"
strip -o "$folder/rpm/release/pgnorth" "target/$([ "$profile" = dev ] && echo debug || echo "$profile")/pgnorth"
cargo generate-rpm --target-dir "$folder/rpm" --set-metadata "release = \"$release\"" --output "$rpm"
say "$deb"
say "$rpm"
