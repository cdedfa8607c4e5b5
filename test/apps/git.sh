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
app worktree "one-side 2
side-commit
1" bash -ec 'cd /tmp && git init -q -b main r && cd r && echo one >f && git add f && git commit -qm first
	git worktree add -q -b side ../w && cd ../w && echo -n "$(cat f)-$(git branch --show-current) "
	git worktree list | wc -l; echo s >s && git add s && git commit -qm side-commit
	cd ../r && git log -1 --format=%s side && git worktree remove --force ../w && git worktree list | wc -l'
app gc_stash_rebase "packed 0 loose
stash ok
0 1 2 3 4" bash -ec 'cd /tmp && git init -q -b main r && cd r && for i in 0 1 2; do echo $i >f$i; git add .; git commit -qm $i; done
	git gc -q --aggressive --prune=now 2>/dev/null; echo "packed $(git count-objects | cut -d " " -f 1) loose"
	echo dirty >f0; git stash -q; [ "$(cat f0)" = 0 ]; git stash pop -q; [ "$(cat f0)" = dirty ] && echo stash ok; git checkout -q f0
	git checkout -q -b t HEAD~1; for i in 3 4; do echo $i >f$i; git add .; git commit -qm $i; done; git rebase -q main
	git log --reverse --format=%s | paste -sd " "'
app bundle_hooks "hook ran
first
patched" bash -ec 'cd /tmp && git init -q -b main r && cd r && echo one >f && git add f
	printf "#!/bin/sh\necho hook ran >&2\n" >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; git commit -qm first 2>&1
	git bundle create -q ../b --all && git clone -q -b main ../b ../c && git -C ../c log --format=%s
	rm .git/hooks/pre-commit; echo two >>f; git commit -qam second; git format-patch -q -1 -o .. && cd ../c && git am -q ../0001-second.patch &&
	grep -q two f && echo patched'
finish
