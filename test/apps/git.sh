#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# git: a repository is made, committed to, logged, branched, merged, packed and cloned.
# timeout: 120
. "$(dirname "$0")/app.sh"
BOX_OPTS=(--env=HOME=/tmp --env=GIT_AUTHOR_NAME=a --env=GIT_AUTHOR_EMAIL=a@b --env=GIT_COMMITTER_NAME=a
	--env=GIT_COMMITTER_EMAIL=a@b "--env=GIT_AUTHOR_DATE=2001-02-03T04:05:06Z"
	"--env=GIT_COMMITTER_DATE=2001-02-03T04:05:06Z")
app all "second
first
merged clone-ok
fsck-ok
201" bash -ec 'cd /tmp && git init -q -b main r && cd r && echo one >f && git add f && git commit -qm first &&
	echo two >>f && git commit -qam second && git log --format=%s
	git checkout -q -b side && for i in $(seq 200); do echo $i >f$i; done && git add . && git commit -qm many
	git checkout -q main && git merge -q side && echo -n "merged "
	git gc -q 2>/dev/null; cd .. && git clone -q r c 2>/dev/null && diff -r -x .git r c && echo clone-ok
	cd c && git fsck --strict >/dev/null 2>&1 && echo fsck-ok; git ls-files | wc -l'
app commit_id "e2d2dbb519a2ac9b64eecedd87380da490503091" bash -ec 'cd /tmp && git init -q -b main r && cd r &&
	echo one >f && git add f && git commit -qm first && git rev-parse HEAD'
app clone_file_url "1" bash -ec 'cd /tmp && git init -q -b main r && cd r && echo one >f && git add f &&
	git commit -qm first && cd .. && git clone -q "file:///tmp/r" d && git -C d log --oneline | wc -l'
finish
