#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sqlite3: 100,000 rows with a rollback journal and with a write-ahead log, then checked and rolled back.
# timeout: 300
BOX_LIMIT=200
. "$(dirname "$0")/app.sh"
for mode in delete wal; do
	app "load_$mode" "$mode
100000|4999950000
ok
ok" bash -c 'cd /tmp && sqlite3 t.db "PRAGMA journal_mode='$mode';" &&
	{ echo "CREATE TABLE t(a INTEGER PRIMARY KEY, b INTEGER, c TEXT);"
	for k in 0 1 2 3 4 5 6 7 8 9; do
		echo "BEGIN;"
		seq $((k * 10000)) $((k * 10000 + 9999)) | sed "s/.*/INSERT INTO t(b,c) VALUES(&,'"'"'row &'"'"');/"
		echo "COMMIT;"
	done; echo "CREATE INDEX i ON t(b);"; } | sqlite3 t.db &&
	sqlite3 t.db "SELECT count(*), sum(b) FROM t; PRAGMA integrity_check;" &&
	sqlite3 t.db "BEGIN; DELETE FROM t; ROLLBACK;" &&
	[ "$(sqlite3 t.db "SELECT count(*) FROM t;")" = 100000 ] && echo ok'
done
app small_transactions "300" bash -c 'cd /tmp && { echo "CREATE TABLE t(a);"; seq 300 | sed "s/.*/INSERT INTO t VALUES(&);/"; } |
	sqlite3 s.db && sqlite3 s.db "SELECT count(*) FROM t"'
app busy "database is locked" bash -c 'cd /tmp && sqlite3 l.db "CREATE TABLE t(a);"
	{ echo "BEGIN EXCLUSIVE;"; sleep 1; echo "COMMIT;"; } | sqlite3 l.db & sleep 0.4
	sqlite3 l.db "INSERT INTO t VALUES(1);" 2>&1 | grep -o "database is locked"; wait'
finish
