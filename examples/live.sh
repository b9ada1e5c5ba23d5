#!/usr/bin/env bash
# Real events, watched live in three ways: the tests of this repository run, their
# output is published line by line, and the page of `carillon dev`, curl and
# `carillon tail` must show the same events, with the same ids, in the same order.
#
#   examples/live.sh [SCREENSHOT.png]
#
# It needs Go, curl, Node.js, Chromium, and `npm install` in this directory (make
# browser does it). PACKAGES chooses the tests (default ./...), TEST_SECONDS how long
# they may run (default 120), CHROMIUM the browser. Whatever it starts it ends.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."

packages=${PACKAGES:-./...}
test_seconds=${TEST_SECONDS:-120}
chromium=${CHROMIUM:-$(command -v chromium || command -v google-chrome || true)}
work=$(mktemp -d)
screenshot=${1:-$work/live.png}
started=()

die() {
	echo "live: $*" >&2
	exit 1
}

finish() {
	local code=$?
	trap - EXIT INT TERM
	if ((${#started[@]})); then
		kill "${started[@]}" 2>/dev/null || true
		wait "${started[@]}" 2>/dev/null || true
	fi
	if [ $code != 0 ]; then
		for f in "$work"/*.log; do
			[ -s "$f" ] && echo "--- ${f##*/}" >&2 && tail -n 15 "$f" >&2
		done
	fi
	rm -rf "$work"
	exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

# within SECONDS WHAT COMMAND...: try a command until it succeeds.
within() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || die "$what did not happen in time"
		sleep 0.2
	done
}

[ -n "$chromium" ] || die "there is no Chromium; install it, or name it in CHROMIUM"
[ -d "$here/node_modules/playwright-core" ] || die "playwright-core is missing; run: npm install --prefix examples --ignore-scripts"

echo "live: building"
go build -o "$work/carillon" ./cmd/carillon

"$work/carillon" dev --listen 127.0.0.1:0 --ops 127.0.0.1:0 --env-file "$work/node.env" >"$work/dev.log" 2>&1 &
started+=($!)
within 30 "the start of the node" test -f "$work/node.env"
# These are for the commands below, not for the tests.
setting() { sed -n "s/^$1=//p" "$work/node.env"; }
url=$(setting CARILLON_URL) ops=$(setting CARILLON_OPS_URL) token=$(setting CARILLON_TOKEN) key=$(setting CARILLON_API_KEY)

curl -sNG "$url/v1/sse" -H "Authorization: Bearer $token" --data-urlencode 'pattern=>' >"$work/curl.sse" 2>"$work/curl.log" &
started+=($!)
CARILLON_URL=$url CARILLON_TOKEN=$token "$work/carillon" tail '>' --since -10m --json >"$work/tail.ndjson" 2>"$work/tail.log" &
started+=($!)
CHROMIUM=$chromium node "$here/live.mjs" watch "$ops" "$work" "$screenshot" >"$work/page.log" 2>&1 &
page=$!
started+=($page)
watching() { curl -fsS "$ops/metrics" | grep -qx 'ws_connections_active 3'; }
within 60 "page, curl and tail watching" watching
within 10 "the page being live" test -f "$work/page.ready"

echo "live: go test -json -short $packages"
# Whether the tests pass is another matter; here they are what happens.
# shellcheck disable=SC2086 # the packages are several words
{ timeout "$test_seconds" go test -json -short $packages 2>"$work/test.log" || true; } |
	CARILLON_URL=$url CARILLON_API_KEY=$key "$work/carillon" publish --type-field Action - >"$work/publish.out" 2>"$work/publish.log" ||
	die "publish failed"

node "$here/live.mjs" history "$url" "$token" >"$work/history.ndjson"
tail -n 1 "$work/history.ndjson" >"$work/last.tmp"
[ -s "$work/last.tmp" ] || die "nothing was published"
mv "$work/last.tmp" "$work/last.json" # the page ends when it has this one
within 60 "the last event in curl and tail" node "$here/live.mjs" has "$work"
wait "$page" || die "the page did not show everything"

node "$here/live.mjs" compare "$work"
[ "$screenshot" = "$work/live.png" ] || echo "live: the page is in $screenshot"

echo "live: the Go client's tests against the same node"
CARILLON_URL=$url CARILLON_API_KEY=$key go test -C clients/go -count=1 -v -run '^TestLive' . >"$work/client.log" 2>&1 || { cat "$work/client.log"; die "the Go client's tests failed"; }
! grep -q -- '--- SKIP' "$work/client.log" || die "the Go client's tests were skipped"
grep -c -- '^--- PASS' "$work/client.log" | sed 's/$/ passed, 0 failed/'
