#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kvmsbox invoke and kvmsbox load against a server (server.c) that is right, slow or wrong: what goes
# out, what is counted, exit statuses, and bad input, which ends in one line on stderr.
#
#	test/load/run.sh [NAME-PATTERN]
. "$(dirname "$0")/../lib.sh"
pattern=${1:-}
need_kvmsbox
# A proxy or a token of whoever runs this is none of the tests' business.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY KVMSBOX_TOKEN
wants() { [ -z "$pattern" ] || [[ $1 == *$pattern* ]]; }
kb() { timeout -k 5 "${LIMIT:-30}" "$KVMSBOX" "$@"; }

# A python3 found by PATH may be a script that looks for one.
python=/usr/bin/python3
[ -x $python ] || python=python3

if ! gcc -O2 -D_GNU_SOURCE -Wall -Werror -o "$SCRATCH/server" "$ROOT/test/load/server.c" -lssl -lcrypto -pthread \
	2>"$SCRATCH/gcc.log"; then
	fail "build the test server" "$(cat "$SCRATCH/gcc.log")"
	finish
fi
# certificate NAME SUBJECT…
certificate() {
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext "subjectAltName=$2" \
		-keyout "$SCRATCH/$1.key" -out "$SCRATCH/$1.pem" 2>/dev/null || { fail "make a certificate"; finish; }
}
certificate cert DNS:localhost,IP:127.0.0.1
certificate other DNS:other.example

# A server ends when its standard input does: with this script, at the latest.
mkfifo "$SCRATCH/life"
exec 9<>"$SCRATCH/life"
servers=()
# serve ARG…: $served is the port or path.
serve() {
	local out i
	out=$(mktemp "$SCRATCH/served.XXXXXX")
	"$SCRATCH/server" "$@" <"$SCRATCH/life" >"$out" 2>"$SCRATCH/server.log" &
	servers+=($!)
	for ((i = 0; i < 100; i++)); do
		served=$(cat "$out")
		[ -z "$served" ] || return 0
		sleep 0.05
	done
	fail "start the test server" "$(cat "$SCRATCH/server.log")"
	finish
}
trap '[ "$BASHPID" != $$ ] || kill "${servers[@]}" 2>/dev/null; scratch_remove' EXIT
serve tcp
url=http://127.0.0.1:$served plain_port=$served
serve unix:"$SCRATCH/sock"
serve --tls "$SCRATCH/other.pem" "$SCRATCH/other.key" tcp
tls_other=https://127.0.0.1:$served
serve --tls "$SCRATCH/cert.pem" "$SCRATCH/cert.key" tcp
tls=https://127.0.0.1:$served tls_port=$served
# A port that nobody listens on: one that was free a moment ago.
closed_port=$($python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# says NAME STATUS STDOUT CMD…: with nothing on standard input.
says() {
	local name=$1 want=$2 text=$3 got st
	shift 3
	wants "$name" || return 0
	got=$("$@" 2>"$SCRATCH/stderr" </dev/null)
	st=$?
	if [ $st -ne "$want" ]; then
		fail "$name" "exit status $st, not $want" "$got" "$(cat "$SCRATCH/stderr")"
	else
		expect "$name" "$text" "$got"
	fi
}
# bad NAME STATUS REGEX CMD…: one line on stderr that matches.
bad() {
	local name=$1 want=$2 regex=$3 st
	shift 3
	wants "$name" || return 0
	"$@" >"$SCRATCH/stdout" 2>"$SCRATCH/stderr" </dev/null
	st=$?
	if [ $st -ne "$want" ]; then
		fail "$name" "exit status $st, not $want" "$(cat "$SCRATCH/stderr")"
	elif [ "$(wc -l <"$SCRATCH/stderr")" -ne 1 ]; then
		fail "$name" "not one line on stderr" "$(cat "$SCRATCH/stderr")"
	else
		expect_match "$name" "$regex" "$(cat "$SCRATCH/stderr")"
	fi
}
invoke() { kb invoke "$@"; }

# --- invoke: the command line
says invoke_help 0 yes eval 'kb invoke --help | grep -q "usage: kvmsbox invoke" && echo yes'
bad invoke_no_url 125 'want one URL' invoke
bad invoke_two_urls 125 'want one URL' invoke "$url/ok" "$url/ok"
bad invoke_unknown_option 125 'unknown option --nonsense' invoke --nonsense "$url/ok"
bad invoke_needs_value 125 'needs a value' invoke "$url/ok" --token
bad invoke_no_scheme 125 'want http://' invoke 127.0.0.1/f/x
bad invoke_other_scheme 125 'want http:// or https://' invoke ftp://127.0.0.1/x
bad invoke_bad_url 125 'no URL' invoke 'http://127.0.0.1:999999/'
bad invoke_password 125 'use --token' invoke http://me:secret@127.0.0.1/
bad invoke_path_only 125 'no server in it' invoke /f/x
bad invoke_bad_header 125 'NAME: VALUE' invoke -H nonsense "$url/ok"
bad invoke_header_injection 125 'one line' invoke -H $'A: b\r\nC: d' "$url/ok"
bad invoke_length_header 125 'leave it out' invoke -H 'Content-Length: 7' "$url/ok"
bad invoke_bad_timeout 125 'time like' invoke --timeout soon "$url/ok"
bad invoke_zero_timeout 125 'time like' invoke --timeout 0 "$url/ok"
bad invoke_bad_method 125 'method like' invoke --method 'GET /' "$url/ok"
bad invoke_bad_repeat 125 'from 1' invoke --repeat 0 "$url/ok"
bad invoke_no_data_file 125 'can.t read it: No such file' invoke --data @/nonexistent "$url/ok"
bad invoke_no_token_file 125 'No such file' invoke --token-file /nonexistent "$url/ok"
bad invoke_bad_token 125 'no spaces' invoke --token 'a b' "$url/ok"
bad invoke_long_socket 125 '107 bytes' invoke --unix "/$(printf %0120d 0)" /ok
bad invoke_no_cacert 125 'No such file' invoke --cacert /nonexistent "$tls/ok"
for option in $(kb invoke --help; kb load --help) --help; do
	case $option in
	--help*) continue ;;
	--[a-z]*) option=${option%%[^a-z-]*} ;;
	*) continue ;;
	esac
	name=man_page_has_${option#--}
	grep -qF -- "${option//-/\\-}" "$ROOT/docs/kvmsbox.1" || fail "$name"
	checked=$((${checked:-0} + 1))
done
[ "${checked:-0}" -gt 20 ] && pass man_page_names_options || fail man_page_names_options "only $checked options seen"

# --- invoke: answers and statuses
says invoke_ok 0 hello invoke "$url/ok"
says invoke_exit_3 3 'what it printed' invoke "$url/exit/3"
says invoke_exit_0 0 'what it printed' invoke "$url/exit/0"
says invoke_500 22 'status 500' invoke "$url/status/500"
bad invoke_404_hint 22 'answer 404: is the function' invoke "$url/nosuch"
bad invoke_exit_hint 9 'the function ended with status 9' invoke "$url/exit/9"
bad invoke_error_word 22 'answer 429 \(queue-full\): .* try again later' invoke "$url/full"
bad invoke_refused 7 'can.t connect: Connection refused: is kvmsbox serve running' invoke "http://127.0.0.1:$closed_port/x"
bad invoke_no_host 6 'name right' invoke http://nosuchhost.invalid/x
bad invoke_timeout 28 'no answer in time' invoke --timeout 200ms "$url/never"
bad invoke_cut 18 'ended the connection' invoke "$url/cut"
bad invoke_dropped 52 'ended the connection' invoke "$url/drop"
bad invoke_garbage 1 'no HTTP server' invoke "$url/garbage"
bad invoke_full_disk 23 'No space left' eval 'invoke "$url/ok" 3>&1 >/dev/full'
says invoke_chunked 0 'first, then nothing' invoke "$url/chunked"
says invoke_split 0 'first, then nothing' invoke "$url/split"
says invoke_eof 0 'until the end' invoke "$url/eof"
says invoke_continue 0 'at last' invoke "$url/continue"
says invoke_large 0 10000000 eval 'invoke "$url/large" | wc -c'
says invoke_localhost 0 hello invoke "http://localhost:$plain_port/ok"
says invoke_options_behind 0 hello invoke "$url/ok" --timeout 5
if wants invoke_reader_leaves; then
	invoke "$url/large" 2>"$SCRATCH/stderr" </dev/null | head -c 1 >/dev/null
	expect invoke_reader_leaves "23 " "${PIPESTATUS[0]} $(cat "$SCRATCH/stderr")"
fi

# --- invoke: what is sent
request() { invoke "$@" | tr -d '\r' | grep -Ei "$want_lines"; }
want_lines='^(GET|POST|PUT|HEAD) '
says invoke_is_get 0 'GET /head HTTP/1.1' request "$url/head"
says invoke_data_is_post 0 'POST /head HTTP/1.1' request --data x "$url/head"
says invoke_query 0 'GET /head/../a%20b?q=1&r= HTTP/1.1' request "$url/head/../a b?q=1&r="
says invoke_method 0 'PUT /head HTTP/1.1' request --method PUT "$url/head"
want_lines='^(x-|content-type|host)'
says invoke_headers 0 "Host: 127.0.0.1:$plain_port
X-One: 1
X-Empty:
X-Two: a: b" request -H 'X-One: 1' -H 'X-Empty:' -H 'X-Two: a: b' "$url/head"
says invoke_content_type 0 "Host: me
Content-Type: text/plain" request -H 'Host: me' -H 'Content-Type: text/plain' -d x "$url/head"
says invoke_head 0 '' invoke --method HEAD "$url/ok"
says invoke_data_text 0 'some text' invoke --data 'some text' "$url/echo"
says invoke_data_empty 0 'POST' eval 'invoke --data "" "$url/head" | cut -d" " -f1 | head -n 1'
printf 'a file\nof lines\n' >"$SCRATCH/file"
says invoke_data_file 0 $'a file\nof lines' invoke --data "@$SCRATCH/file" "$url/echo"
says invoke_data_stdin 0 $'a file\nof lines' eval 'invoke --data - "$url/echo" <"$SCRATCH/file"'
says invoke_stdin 0 $'a file\nof lines' eval 'cat "$SCRATCH/file" | invoke "$url/echo"'
head -c 3000000 /dev/urandom >"$SCRATCH/binary"
says invoke_binary 0 same eval 'invoke "$url/echo" <"$SCRATCH/binary" | cmp - "$SCRATCH/binary" && echo same'
says invoke_include 0 'HTTP/1.1 200 Status' eval 'invoke -i "$url/ok" | head -n 1 | tr -d "\r"'
says token_option 0 'let in' invoke --token secret "$url/auth"
echo secret >"$SCRATCH/token"
says token_file 0 'let in' invoke --token-file "$SCRATCH/token" "$url/auth"
says token_environment 0 'let in' env KVMSBOX_TOKEN=secret "$KVMSBOX" invoke "$url/auth"
says token_option_wins 0 'let in' env KVMSBOX_TOKEN=other "$KVMSBOX" invoke --token secret "$url/auth"
says token_header_wins 0 'let in' invoke --token other -H 'Authorization: Bearer secret' "$url/auth"
bad token_missing 22 '401: give the server.s token' invoke "$url/auth"
# counter FIELD: what the server itself has counted so far.
counter() { invoke "$url/count" </dev/null | tr ' ' '\n' | grep -A 1 -x "$1" | tail -n 1; }
if wants invoke_repeat; then
	before=$(counter connections)
	got=$(invoke --repeat 3 -v "$url/ok" 2>"$SCRATCH/stderr" </dev/null)
	expect invoke_repeat "hello hello hello 2" "$(echo $got $(($(counter connections) - before)))"
	expect_match invoke_verbose '^3: 200, [0-9.]+ ms, 6 bytes$' "$(tail -n 1 "$SCRATCH/stderr")"
fi
says invoke_repeat_first_status 22 'maybe' eval 'invoke --repeat 2 "$url/flaky/2" 2>&1 | grep -m1 maybe; (exit ${PIPESTATUS[0]})'

# --- invoke: other ways there
says invoke_unix 0 hello invoke --unix "$SCRATCH/sock" /ok
says invoke_unix_url 0 hello invoke --unix "$SCRATCH/sock" http://anything/ok
bad invoke_unix_missing 7 '/nonexistent: can.t connect: No such file' invoke --unix /nonexistent /ok
says invoke_tls 0 hello invoke --cacert "$SCRATCH/cert.pem" "$tls/ok"
says invoke_tls_name 0 hello invoke --cacert "$SCRATCH/cert.pem" "https://localhost:$tls_port/ok"
says invoke_tls_insecure 0 hello invoke -k "$tls/ok"
bad invoke_tls_untrusted 60 'by --cacert, or trust it by -k' invoke "$tls/ok"
bad invoke_tls_wrong_name 60 'by --cacert' invoke --cacert "$SCRATCH/other.pem" "$tls_other/ok"
bad invoke_tls_to_plain 35 'speak TLS there' invoke -k "https://127.0.0.1:$plain_port/ok"

# --- the program that does it
if wants helper; then
	mkdir -p "$SCRATCH/alone" "$SCRATCH/usr/bin" "$SCRATCH/usr/libexec/kvmsbox"
	cp "$KVMSBOX" "$SCRATCH/alone/"
	cp "$KVMSBOX" "$SCRATCH/usr/bin/"
	cp "$(dirname "$KVMSBOX")/kvmsbox-load" "$SCRATCH/usr/libexec/kvmsbox/"
	says helper_installed 0 hello "$SCRATCH/usr/bin/kvmsbox" invoke "$url/ok"
	bad helper_missing 125 "invoke: kvmsbox-load isn't where kvmsbox is" "$SCRATCH/alone/kvmsbox" invoke "$url/ok"
	bad helper_direct 125 'kvmsbox runs it' "$(dirname "$KVMSBOX")/kvmsbox-load"
	printf 'no program' >"$SCRATCH/alone/kvmsbox-load"
	chmod 755 "$SCRATCH/alone/kvmsbox-load"
	bad helper_broken 125 "can't run .*install it anew" "$SCRATCH/alone/kvmsbox" load "$url/ok"
fi

# --- load: the command line
says load_help 0 yes eval 'kb load --help | grep -q "usage: kvmsbox load" && echo yes'
load() { kb load "$@"; }
bad load_no_url 125 'no URL' load
bad load_unknown_option 125 'unknown option' load --nonsense "$url/ok"
bad load_needs_value 125 'needs a value' load "$url/ok" -c
bad load_bad_connections 125 'from 1 to' load -c 0 "$url/ok"
bad load_many_connections 125 'open' eval 'ulimit -n 64; load -c 1000 "$url/ok"'
bad load_bad_requests 125 '--requests -5' load -n -5 "$url/ok"
bad load_bad_duration 125 'time like' load -d 5x "$url/ok"
bad load_bad_rate 125 'requests a second' load -R 0 "$url/ok"
bad load_bad_statuses 125 'list like' load --expect-status 200- "$url/ok"
bad load_bad_statuses_2 125 'list like' load --expect-status 20 "$url/ok"
bad load_bad_max_errors 125 'want a number' load --max-errors some "$url/ok"
bad load_other_server 125 'not of the same server' load "$url/ok" "$tls/ok"
bad load_no_url_file 125 'No such file' load --url-file /nonexistent
bad load_bad_url_file 125 'want http://' load --url-file "$SCRATCH/file"
bad load_json_first 125 'No such file' load -d 25 --json /nonexistent/x "$url/ok"
bad load_refused 7 'Connection refused: is kvmsbox serve' load "http://127.0.0.1:$closed_port/x"
bad load_no_host 125 'name right' load http://nosuchhost.invalid/x
bad load_unix_missing 7 'No such file' load --unix /nonexistent /x
bad load_untrusted 60 'trusted.*--cacert' load "$tls/ok"
bad load_wrong_name 60 'mismatch' load --cacert "$SCRATCH/other.pem" "$tls_other/ok"
bad load_tls_to_plain 35 'speak TLS' load -k "https://127.0.0.1:$plain_port/ok"

# run ARG…: kvmsbox load, its results in $SCRATCH/json, its status in $st.
run() {
	rm -f "$SCRATCH/json"
	load --json "$SCRATCH/json" "$@" >"$SCRATCH/stdout" 2>"$SCRATCH/stderr" </dev/null
	st=$?
}
# holds NAME STATUS EXPRESSION: of the last run; j is its JSON, which must be consistent, too.
holds() {
	local got
	if [ $st -ne "$2" ]; then
		fail "$1" "exit status $st, not $2" "$(cat "$SCRATCH/stderr" "$SCRATCH/stdout")"
		return
	fi
	got=$($python -IS - "$SCRATCH/json" "$3" 2>&1 <<'PY'
import json, sys
j = json.load(open(sys.argv[1]))
kinds = {k: v["count"] for k, v in j["errors_by_kind"].items()}
l = j["latency_ns"]
def over(ms): return sum(n for low, high, n in l["buckets"] if low >= ms * 1e6)
def check(what):
    if not eval(what):
        l["buckets"] = len(l["buckets"])
        j.get("lag_ns", l)["buckets"] = 0
        print(what, "doesn't hold:", json.dumps(j))
        sys.exit(1)
check("j['good'] + j['errors'] + j['cut_off'] == j['requests']")
check("sum(kinds.values()) == j['errors']")
check("l['count'] == sum(b[2] for b in l['buckets'])")
check("l['count'] == j['good'] + kinds.get('timeout', 0) + kinds.get('unsent', 0)")
check("l['min'] <= l['p50'] <= l['p90'] <= l['p99'] <= l['p99_9'] <= l['p99_99'] <= l['max']")
check("all(a[1] < b[0] for a, b in zip(l['buckets'], l['buckets'][1:]))")
check("not l['count'] or l['buckets'][0][0] <= l['min'] <= l['mean'] <= l['max'] <= l['buckets'][-1][1]")
check("sum(j['statuses'].values()) == j['good'] + kinds.get('status', 0) + kinds.get('expect', 0)")
check("j['seconds'] == 0 or abs(j['per_second'] - j['good'] / j['seconds']) < 1")
check(sys.argv[2])
PY
	) && pass "$1" || fail "$1" "$got"
}

# --- load: counting
if wants load_counts; then
	before=$(counter requests)
	run -n 500 -c 7 "$url/ok"
	holds load_counts 0 "j['requests'] == 500 and j['good'] == 500 and j['statuses'] == {'200': 500} and j['connections_made'] == 7"
	expect load_counts_as_the_server 501 $(($(counter requests) - before))
	expect load_no_progress_without_terminal "" "$(cat "$SCRATCH/stderr")"
	expect load_histogram_sums 500 "$(awk '/%  #|% *$/ { n += $(NF - ($NF ~ /#/) - 1) } END { print n }' "$SCRATCH/stdout")"
	expect_match load_summary '^requests  500 in .* on 7 connections \(7 made\)' "$(cat "$SCRATCH/stdout")"
fi
if wants load_no_keepalive; then
	run -n 60 -c 3 --no-keepalive "$url/ok"
	holds load_no_keepalive 0 "j['good'] == 60 and j['connections_made'] == 60"
	run -n 60 -c 3 "$url/close"
	holds load_no_keepalive_by_server 0 "j['good'] == 60 and j['connections_made'] == 60"
	run -n 20 -R 100 -c 1 "$url/silent"
	holds load_no_keepalive_unannounced 0 "j['good'] == 20 and j['connections_made'] == 20"
fi
if wants load_localhost; then
	# Which may be ::1 first, where nobody listens.
	run -n 10 "http://localhost:$plain_port/ok"
	holds load_localhost 0 "j['good'] == 10"
fi
if wants load_answers; then
	run -n 40 -c 4 --expect 'first, then nothing' "$url/chunked"
	holds load_answers_chunked 0 "j['good'] == 40 and j['connections_made'] == 4"
	run -n 4 -c 4 --expect 'first, then nothing' "$url/split"
	holds load_answers_split 0 "j['good'] == 4"
	run -n 40 -c 4 "$url/eof"
	holds load_answers_eof 0 "j['good'] == 40 and j['connections_made'] == 40"
	run -n 40 -c 4 --expect 'at last' "$url/continue"
	holds load_answers_continue 0 "j['good'] == 40 and j['statuses'] == {'200': 40}"
	run -n 40 -c 4 --method HEAD "$url/ok"
	holds load_answers_head 0 "j['good'] == 40 and j['connections_made'] == 4"
	run -n 8 -c 2 "$url/large"
	holds load_answers_large 0 "j['good'] == 8 and j['bytes_in'] > 80e6"
	run -n 8 -c 2 --body "@$SCRATCH/binary" "$url/echo"
	holds load_answers_echo 0 "j['good'] == 8 and j['bytes_in'] > 24e6 and j['bytes_out'] > 24e6"
	run -n 10 -c 2 --token secret "$url/auth"
	holds load_answers_token 0 "j['good'] == 10"
	run -n 10 -c 2 -b 'find this' --expect "find this" "$url/echo"
	holds load_answers_body 0 "j['good'] == 10"
	run -n 1 -H 'X-Mine: yes' --method PUT --expect $'PUT /head HTTP/1.1\r\nHost: 127.0.0.1:'"$plain_port" "$url/head"
	holds load_answers_request_line 0 "j['good'] == 1"
	run -n 1 -H 'X-Mine: yes' --expect $'\r\nX-Mine: yes\r\n' "$url/head"
	holds load_answers_header 0 "j['good'] == 1"
fi
# fails KIND PATH OPTION…: every request, and for that reason.
fails() {
	local kind=$1 path=$2
	shift 2
	run -n 12 -c 3 "$@" "$url/$path"
	holds "load_error_${path%%/*}" 1 "j['good'] == 0 and kinds == {'$kind': 12} and j['errors_by_kind']['$kind']['first']"
}
if wants load_error; then
	fails closed cut
	fails closed half
	fails closed drop
	fails protocol garbage
	fails protocol extra
	fails status status/503
	fails expect ok --expect goodbye
	fails timeout never --timeout 200ms
	holds load_error_timeout_is_latency 1 "l['min'] >= 2e8 and l['count'] == 12"
	fails status early --body "@$SCRATCH/binary"
	holds load_error_early_status 1 "j['statuses'] == {'413': 12}"
	run -n 40 -c 2 --max-errors 40 "$url/flaky/2"
	holds load_error_allowed 0 "0 < j['errors'] < 40 and j['statuses']['500'] == j['errors']"
	run -n 40 -c 2 --max-errors 3 "$url/flaky/2"
	holds load_error_too_many 1 "j['errors'] > 3"
	run -n 10 --expect-status 404,500-503 "$url/status/502"
	holds load_error_expected 0 "j['good'] == 10 and j['statuses'] == {'502': 10}"
	run -n 10 --expect-status 404,500-501 "$url/ok"
	holds load_error_200_unexpected 1 "kinds == {'status': 10}"
fi
if wants load_urls; then
	printf '# some\n\n  %s/status/201 # first\n%s/status/202\n' "$url" "$url" >"$SCRATCH/urls"
	run -n 30 -c 4 --url-file "$SCRATCH/urls" "$url/ok"
	holds load_urls 0 "j['statuses'] == {'200': 10, '201': 10, '202': 10} and len(j['urls']) == 3"
fi

# --- load: the schedule
if wants load_rate; then
	run -R 500 -d 1 "$url/ok"
	holds load_rate 0 "j['requests'] == 500 and abs(j['seconds'] - 1) < 0.1"
	run -R 2.5 -n 3 "$url/ok"
	holds load_rate_fraction 0 "j['requests'] == 3 and 1.19 < j['seconds'] < 1.4"
	run -R 200 --warm-up 500ms -d 500ms "$url/ok"
	holds load_rate_warm_up 0 "j['requests'] == 100 and j['warm_up'] == 100 and j['seconds'] < 0.7"
fi
if wants load_warm_up; then
	run --warm-up 300ms -n 50 -c 2 "$url/slow/10"
	holds load_warm_up 0 "j['requests'] == 50 and j['warm_up'] > 10"
fi
# One stall of 500 ms in a schedule of 100/s delays 50 requests, by 500 ms down to 0, also when there
# is one connection, over which only one request was under way.
if wants load_stall; then
	for c in 1 20; do
		(sleep 0.7; invoke "$url/stall/500" </dev/null >/dev/null) &
		run -R 100 -d 2 -c $c "$url/ok"
		wait $!
		holds "load_stall_$c" 0 "j['requests'] == 200 and l['p99'] > 4e8 and 18 <= over(250) <= 32 and 38 <= over(20)"
	done
	(sleep 0.7; invoke "$url/stall/200" </dev/null >/dev/null) &
	run -R 100 -d 2 -c 4 "$url/ok"
	wait $!
	holds load_stall_200ms 0 "j['requests'] == 200 and 1.5e8 < l['p99'] < 4e8"
fi
if wants load_unsent; then
	run -R 100 -n 60 -c 1 --timeout 500ms "$url/slow/100"
	holds load_unsent 1 "j['requests'] == 60 and kinds.get('unsent', 0) > 30 and 4 <= j['good'] <= 12 and l['p99'] >= 5e8"
	expect_match load_unsent_note "doesn't keep up with --rate" "$(cat "$SCRATCH/stdout")"
	run -R 100 -n 40 -c 1 "$url/slow/20"
	holds load_unsent_but_late 0 "j['good'] == 40 and l['max'] > 3e8"
fi

# --- load: its ends
if wants load_interrupt; then
	rm -f "$SCRATCH/json"
	start=$SECONDS
	timeout --preserve-status -s INT 1 "$KVMSBOX" load -d 60 -c 3 --json "$SCRATCH/json" "$url/slow/400" \
		>"$SCRATCH/stdout" 2>"$SCRATCH/stderr" </dev/null
	st=$?
	holds load_interrupt 0 "j['interrupted'] and j['cut_off'] == 3 and j['good'] in (3, 6) and 0.5 < j['seconds'] < 2"
	expect_match load_interrupt_summary 'interrupted; 3 requests' "$(cat "$SCRATCH/stdout")"
	[ $((SECONDS - start)) -lt 10 ] && pass load_interrupt_is_soon || fail load_interrupt_is_soon "$((SECONDS - start)) s"
	timeout --preserve-status -s TERM 2 "$KVMSBOX" load -R 100 -d 60 -c 1 --json "$SCRATCH/json" "$url/slow/400" \
		>"$SCRATCH/stdout" 2>"$SCRATCH/stderr" </dev/null
	st=$?
	holds load_interrupt_rate 1 "j['interrupted'] and j['requests'] >= 60 and kinds['unsent'] > 50 and l['max'] > 5e8"
fi
if wants load_gone; then
	serve tcp
	(sleep 0.5; kill "${servers[-1]}") &
	run -d 1.5 -c 4 "http://127.0.0.1:$served/ok"
	wait $!
	holds load_gone 1 "j['good'] > 100 and kinds['connect'] > 20 and kinds['connect'] < 800 and 'refused' in j['errors_by_kind']['connect']['first']"
	unset 'servers[-1]'
fi
# cpu ARG…: the processor time of a load, in ms.
cpu() {
	$python -IS - "$KVMSBOX" load "$@" <<'PY'
import resource, subprocess, sys
def now(): u = resource.getrusage(resource.RUSAGE_CHILDREN); return u.ru_utime + u.ru_stime
before = now()
subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
print(int(1000 * (now() - before)))
PY
}
# idle NAME ARG…: over two seconds of waiting, the start included. A loop that spins takes 2000 ms.
idle() {
	local ms
	ms=$(cpu "${@:2}")
	if [ -n "$ms" ] && [ "$ms" -lt "${LOAD_IDLE_MS:-300}" ]; then pass "$1"; else fail "$1" "$ms ms of processor time"; fi
}
if wants load_idle; then
	idle load_idle_between -R 2 -d 2 "$url/ok"
	idle load_idle_waiting -n 5 -c 5 --timeout 2 "$url/never"
	idle load_idle_backlog -n 50 -c 1 -R 1000 --timeout 2 "$url/never"
	idle load_idle_large_send -n 2 -c 2 --timeout 2 -b "@$SCRATCH/binary" "$url/stall/1900"
fi
if wants load_progress; then
	got=$($python -IS - "$KVMSBOX" "$url/ok" <<'PY'
import os, pty, subprocess, sys
m, s = pty.openpty()
p = subprocess.Popen([sys.argv[1], "load", "-d", "1.3", "-R", "100", sys.argv[2]], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=s)
os.close(s)
out = b""
try:
    while b := os.read(m, 4096):
        out += b
except OSError:
    pass
print(p.wait(timeout=20), 2 <= out.count(b"in flight") <= 4, out.endswith(b"\r\x1b[K"), b"\n" in out)
PY
	)
	expect load_progress "0 True True False" "$got"
fi
if wants load_rate_high; then
	run -d 1 -c 16 "$url/ok"
	holds load_rate_high 0 "j['per_second'] > 3000"
fi

# --- load: other ways there
if wants load_unix; then
	run -n 400 -c 20 --unix "$SCRATCH/sock" /ok
	holds load_unix 0 "j['good'] == 400"
	run -n 200 -c 20 --no-keepalive --unix "$SCRATCH/sock" /ok
	holds load_unix_no_keepalive 0 "j['good'] == 200 and j['connections_made'] == 200"
fi
if wants load_tls; then
	run -n 200 -c 4 --cacert "$SCRATCH/cert.pem" --expect hello "$tls/ok"
	holds load_tls 0 "j['good'] == 200 and j['connections_made'] == 4"
	run -n 30 -c 4 -k --no-keepalive "$tls/ok"
	holds load_tls_no_keepalive 0 "j['good'] == 30 and j['connections_made'] == 30"
	run -n 8 -c 2 -k --body "@$SCRATCH/binary" "$tls/echo"
	holds load_tls_large 0 "j['good'] == 8 and j['bytes_in'] > 24e6"
	run -n 20 -c 2 -k "$tls/cut"
	holds load_tls_cut 1 "kinds == {'closed': 20}"
	run -n 10 -c 1 -R 10 -k "$tls/silent"
	holds load_tls_silent 0 "j['good'] == 10"
	run -n 20 -c 2 -k "$tls/eof"
	holds load_tls_eof 0 "j['good'] == 20"
fi
finish
