#!/usr/bin/env bash
# Webhooks as their providers send them: every example payload of GitHub, and some of
# Stripe, Slack, Standard Webhooks, Svix and HMAC of one's own, signed by the
# libraries that the providers give to their customers. A node takes them, is killed
# in the middle and started again, and a page in a browser shows each exactly once.
#
#   examples/hooks.sh [SCREENSHOT.png]
#
# It needs Go, Node.js, Chromium, and `npm install` in this directory (make browser
# does it). CHROMIUM chooses the browser, KILLS how often the node is killed (default
# 3). Whatever it starts it ends.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."

chromium=${CHROMIUM:-$(command -v chromium || command -v google-chrome || true)}
work=$(mktemp -d)
screenshot=${1:-$work/hooks.png}
run=

die() {
	echo "hooks: $*" >&2
	exit 1
}

finish() {
	local code=$?
	trap - EXIT INT TERM
	if [ -n "$run" ]; then
		kill "$run" 2>/dev/null || true
		wait "$run" 2>/dev/null || true
	fi
	if [ -f "$work/node.pid" ]; then # whoever started the node was killed before it
		kill -KILL "$(cat "$work/node.pid")" 2>/dev/null || true
	fi
	if [ $code != 0 ] && [ -s "$work/node.log" ]; then
		echo "--- node.log" >&2
		tail -n 15 "$work/node.log" >&2
	fi
	rm -rf "$work" 2>/dev/null || { sleep 1; rm -rf "$work"; } || true # a browser may be about to end
	exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

[ -n "$chromium" ] || die "there is no Chromium; install it, or name it in CHROMIUM"
for package in playwright-core @octokit/webhooks-examples stripe; do
	[ -d "$here/node_modules/$package" ] || die "$package is missing; run: npm install --prefix examples --ignore-scripts"
done

echo "hooks: building"
go build -o "$work/carillon" ./cmd/carillon

CHROMIUM=$chromium node "$here/hooks.mjs" "$work" "$screenshot" &
run=$!
code=0
wait "$run" || code=$?
run=
[ $code = 0 ] || exit $code
[ "$screenshot" = "$work/hooks.png" ] || echo "hooks: the page is in $screenshot"
