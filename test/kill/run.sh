#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Kills kvmsbox with SIGKILL at random times, during import, boot and run, and looks at what is left:
# no process, no stub, no temporary file, and a cache from which the same image still runs. Then the same
# with a named sandbox, commands that enter it, and each of the processes that take part as the victim:
# ps, rm and a new sandbox of that name work afterwards.
#
#	test/kill/run.sh ptrace|systrap|kvm [ROUNDS]		(200)
. "$(dirname "$0")/../lib.sh"
platform=${1:-ptrace}
rounds=${2:-200}
RANDOM=${KILL_SEED:-$$}
echo "# seed ${KILL_SEED:-$$} (KILL_SEED repeats it)"
if [ "$platform" = kvm ]; then
	why=$(kvm_missing)
	[ -z "$why" ] || { skip "kill on kvm" "$why"; finish; }
fi
need_kvmsbox
image=$("$ROOT/test/images.sh" busybox) || { fail "make the BusyBox image"; finish; }
export TMPDIR=$SCRATCH/tmp
mkdir "$TMPDIR"
reaper=$ROOT/test/cli/subreaper.py
list_host() { { ls -A /dev/shm /run 2>/dev/null; ls -A /tmp | grep -i kvmsbox; ls -A "$TMPDIR"; } | grep -v "^kvmsbox-test\." | sort; }

work='for i in 1 2 3; do (while :; do /bin/true; done) & done; sleep 30 & mkfifo /tmp/f; cat /tmp/f & wait'
ms=1500
left=0 broken=0 dirty=0
before=$(list_host)
for round in $(seq "$rounds"); do
	cache=$SCRATCH/cache.$((round % 4 == 0 ? round : 0))
	# Every fourth round starts with an empty cache and dies early: most likely in the import.
	span=$((round % 4 == 0 ? 150 : ms))
	after=$(printf '0.%04d' $(((RANDOM * 32768 + RANDOM) % (span * 10) + 5)))
	[ "$span" -le 1000 ] || after=$(awk "BEGIN { srand($RANDOM); print 0.005 + rand() * $span / 1000 }")
	[ "$span" -gt 1000 ] || after=$(awk "BEGIN { srand($RANDOM); print 0.0005 + rand() * $span / 1000 }")
	if ! out=$(python3 "$reaper" "$after" "$KVMSBOX" exec --platform="$platform" --cache "$cache" \
		"$image" -- sh -c "$work" 2>&1); then
		left=$((left + 1))
		[ $left -gt 3 ] || echo "# round $round, killed after $after s: $(printf '%s' "$out" | tr '\n' ' ' | cut -c1-200)"
	fi
	if [ $((round % 4)) -eq 0 ] || [ "$round" -eq "$rounds" ] || [ $((round % 10)) -eq 0 ]; then
		got=$(timeout 60 "$KVMSBOX" exec --platform="$platform" --cache "$cache" "$image" -- \
			sh -c 'cat /etc/motd; busybox | wc -l' 2>&1 </dev/null)
		if ! [[ $got =~ ^a\ file\ of\ the\ image$'\n'[1-9][0-9]*$ ]]; then
			broken=$((broken + 1))
			[ $broken -gt 3 ] || echo "# round $round, killed after $after s: then: $(printf '%s' "$got" | head -n 2 | cut -c1-200)"
		fi
		junk=$(find "$cache" -type f \( -name '*.tmp*' -o -name '.*tmp*' -o -name 'tmp*' \) 2>/dev/null | head -n 3)
		if [ -n "$junk" ]; then
			dirty=$((dirty + 1))
			[ $dirty -gt 3 ] || echo "# round $round: left in the cache: $junk"
		fi
		case $cache in *.0) ;; *) rm -rf "$cache" ;; esac
	fi
done

# --- named sandboxes
named=$(((rounds + 3) / 4)) stayed=0 confused=0
cat >"$SCRATCH/named" <<'END'
# $1 kvmsbox, $2 platform, $3 cache, $4 image, $5 victim, $6 when, $7 work
k=$1
"$k" run -d --platform="$2" --cache "$3" --name c "$4" -- sh -c "$7" >/dev/null 2>&1 </dev/null & r=$!
[ "$5" = run ] || wait $r
for i in 1 2 3; do
	"$k" enter c sh -c 'yes | head -c 300000; sleep 30 & wait' >/dev/null 2>&1 </dev/null & e=$!
done
sleep "$6"
case $5 in
run) kill -9 $r ;;
enter) kill -9 $e ;;
sentry) kill -9 "$("$k" ps | awk '$1 == "c" && $2 == "running" { print $3 }')" ;;
rm) "$k" rm -f c & m=$!; sleep 0.01; kill -9 $m ;;
esac 2>/dev/null
for i in $(seq 50); do
	# Until the one that is being made has been, or never will be.
	s=$("$k" ps 2>&1) || break
	[ "$5" = run ] && [ "$i" -lt 30 ] && { sleep 0.05; continue; }
	break
done
case $(echo "$s" | awk '$1 == "c" { print $2 }') in
running | died | exited | "") ;;
*) echo "ps says: $s" ;;
esac
out=$("$k" rm -f c 2>&1) || case $out in *"no sandbox c"*) ;; *) echo "rm: $out" ;; esac
out=$("$k" run -d --platform="$2" --cache "$3" --name c "$4" -- sh -c 'exit 9' 2>&1) || echo "run: $out"
[ "$("$k" wait c)" = 9 ] || echo "wait: $("$k" ps)"
"$k" rm c || echo "rm fails"
[ -z "$(ls "$KVMSBOX_STATE")" ] || echo "left: $(ls "$KVMSBOX_STATE")"
END
export KVMSBOX_STATE=$SCRATCH/state
victims=(run enter sentry rm)
for round in $(seq "$named"); do
	victim=${victims[round % 4]}
	after=$(awk "BEGIN { srand($RANDOM); print rand() * $([ "$victim" = run ] && echo 0.05 || echo 0.5) }")
	if ! out=$(python3 "$reaper" 0 timeout 60 sh "$SCRATCH/named" "$KVMSBOX" "$platform" "$SCRATCH/cache.0" "$image" "$victim" "$after" "$work" 2>&1); then
		stayed=$((stayed + 1))
		echo "# named round $round, $victim killed after $after s: $(printf '%s' "$out" | tr '\n' ' ' | cut -c1-200)"
	elif [ -n "$out" ]; then
		confused=$((confused + 1))
		echo "# named round $round, $victim killed after $after s: $(printf '%s' "$out" | tr '\n' ' ' | cut -c1-200)"
	fi
done
expect "$named named rounds: rounds that left a process" 0 $stayed
expect "$named named rounds: rounds after which the name or its state is not in order" 0 $confused

expect "$rounds rounds: rounds that left a process" 0 $left
expect "$rounds rounds: caches from which the image doesn't run" 0 $broken
expect "$rounds rounds: caches with temporary files after the next run" 0 $dirty
after=$(list_host)
expect "$rounds rounds: files left in /tmp, /dev/shm, /run" "$before" "$after"
finish
