#!/usr/bin/env bash
# Writes first-release.tar.gz anew, with the programs of the first release: everything
# that an install has on its disks (see fixture_test.go). Needs the history, Java and
# Maven. Run it from anywhere; it takes a minute.
set -euo pipefail
cd "$(dirname "$0")"
first=ae0d033
work=$(mktemp -d)
trap 'git worktree remove --force "$work/tree" 2>/dev/null; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/tree" "$first"
(cd "$work/tree" && go build -o "$work/bin/" ./cmd/...)
cd ../..
PARTNERS_TEST_OLD_BINARIES=$work/bin PARTNERS_REQUIRE_KAFKA=1 go test -count=1 -v -run 'TestWriteUpgradeFixture$' .
