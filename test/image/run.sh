#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Images: what is imported is what the archive says (compared with Python's reading of it), what is
# written passes fsck.erofs, the cache survives races, kills and damage, and bad archives end in one
# line on stderr, status 125 and nothing left behind.
#
#	test/image/run.sh [NAME-PATTERN]
. "$(dirname "$0")/../lib.sh"
pattern=${1:-}
need_kvmsbox
here=$ROOT/test/image
for tool in python3 gcc fsck.erofs; do
	command -v $tool >/dev/null || { fail "image: $tool is not installed"; finish; }
done
export TMPDIR=$SCRATCH/tmp
mkdir "$TMPDIR" "$SCRATCH/t"
chmod 755 "$SCRATCH" "$SCRATCH/t"
# Other users must be able to run it, too.
cp "$KVMSBOX" "$(dirname "$KVMSBOX")/kvmsbox-import" "$SCRATCH"
KVMSBOX=$SCRATCH/kvmsbox
walk=$SCRATCH/walk
shim=$SCRATCH/shim.so
cc_flags=(-std=gnu11 -g -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I"$ROOT" -I"$ROOT/arch/x86_64" -Wall)
# The reader runs under the sanitizers here; what it reads is what was written.
gcc "${cc_flags[@]}" -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-o "$walk" "$here/walk.c" "$ROOT/vfs/erofs.c" -lcrypto 2>"$SCRATCH/cc.log" &&
	gcc "${cc_flags[@]}" -U_FILE_OFFSET_BITS -O1 -shared -fPIC -o "$shim" "$here/shim.c" 2>"$SCRATCH/cc.log" || {
	fail "image: the test's programs don't compile" "$(cat "$SCRATCH/cc.log")"
	finish
}
export ASAN_OPTIONS=detect_leaks=0
cd "$SCRATCH/t" || exit 2
cache=$SCRATCH/cache

wants() { [ -z "$pattern" ] || [[ $1 == *$pattern* ]]; }
mk() { python3 "$here/mkimage.py" "$@"; }
import() { timeout -k 5 60 "$KVMSBOX" image import --cache "$cache" "$@" </dev/null; }
image() { local c=$1; shift; timeout -k 5 60 "$KVMSBOX" image "$c" --cache "$cache" "$@" </dev/null; }
box() { timeout -k 5 60 "$KVMSBOX" exec --cache "$cache" "$@" </dev/null; }
entry() { printf '%s/%s.erofs' "$cache" "$1"; }
entries() { find "$1" -name '*.erofs' | wc -l; }
# What an import may leave in a cache: entries and keys.
strays() { find "$1" -mindepth 1 ! -name '*.erofs' ! -name '*.key'; }
is_root() { [ "$(id -u)" = 0 ]; }

# fsck FILE: nothing, or what is wrong.
fsck() { fsck.erofs --extract "$1" >"$SCRATCH/fsck" 2>&1 || cat "$SCRATCH/fsck"; }

# same NAME TAR LIKE: TAR is imported, is sound, and holds what the tar LIKE says.
same() {
	local name=$1 hash out
	wants "$name" || return 0
	hash=$(import "$2" 2>&1) || { fail "$name" "import: $hash"; return; }
	out=$(fsck "$(entry "$hash")")
	[ -z "$out" ] || { fail "$name" "fsck.erofs:" "$out"; return; }
	out=$("$here/compare.sh" "$walk" "$3" "$(entry "$hash")" 2>&1)
	if [ -z "$out" ]; then pass "$name"; else fail "$name" "tar (<) and image (>) differ:" "$out"; fi
}

leftovers() {
	ls -A "$TMPDIR"
	find /tmp -maxdepth 1 -iname '*kvmsbox*' ! -name 'kvmsbox-test.*' | sort
	[ ! -e "$SCRATCH/bad" ] || find "$SCRATCH/bad" | sort
}
# bad NAME REGEX ARG…: image import and exec say the same, in one line, 125, and leave nothing.
# BAD_CACHE: another cache than one that doesn't exist yet; BAD_RUN: what to run kvmsbox with.
bad() {
	local name=$1 regex=$2 st before how cmd dir=${BAD_CACHE:-$SCRATCH/bad/cache}
	shift 2
	wants "$name" || return 0
	before=$(leftovers; [ ! -d "$dir" ] || find "$dir" | sort)
	for how in import exec; do
		cmd=(${BAD_RUN[@]+"${BAD_RUN[@]}"} timeout -k 5 60 "$KVMSBOX")
		if [ $how = import ]; then
			"${cmd[@]}" image import --cache "$dir" "$@"
		else
			"${cmd[@]}" exec --cache "$dir" "$@" -- true
		fi >"$SCRATCH/stdout" 2>"$SCRATCH/stderr" </dev/null
		st=$?
		if [ $st -ne 125 ]; then
			fail "$name" "$how: exit status $st, not 125" "$(cat "$SCRATCH/stderr")"
		elif [ "$(wc -l <"$SCRATCH/stderr")" -ne 1 ] || LC_ALL=C grep -q $'[\001-\010\013-\037\177]\|\302[\200-\237]' "$SCRATCH/stderr"; then
			fail "$name" "$how: want one line of text on stderr" "$(cat -v "$SCRATCH/stderr")"
		elif ! grep -Eq -- "$regex" "$SCRATCH/stderr"; then
			fail "$name" "$how: want a match of: $regex" "$(cat "$SCRATCH/stderr")"
		elif [ -s "$SCRATCH/stdout" ]; then
			fail "$name" "$how: something on stdout" "$(head -c 200 "$SCRATCH/stdout")"
		elif [ "$before" != "$(leftovers; [ ! -d "$dir" ] || find "$dir" | sort)" ]; then
			fail "$name" "$how: left behind:" "$(diff <(echo "$before") \
				<(leftovers; [ ! -d "$dir" ] || find "$dir" | sort))"
		else
			continue
		fi
		return
	done
	pass "$name"
}

# ---- contents

for fmt in pax gnu ustar; do
	mk tree $fmt.tar $fmt
	same "contents_$fmt" $fmt.tar $fmt.tar
done
for z in gzip xz zstd bzip2; do
	command -v $z >/dev/null || { skip "contents_$z" "$z is not installed"; continue; }
	$z -c <pax.tar >pax.tar.$z
	same "contents_$z" pax.tar.$z pax.tar
done
# Compressed twice over in pieces, as pigz and pixz and cat do.
{ head -c 2000000 pax.tar | gzip -1; tail -c +2000001 pax.tar | gzip -1; } >pieces.gz
same contents_gzip_members pieces.gz pax.tar
if command -v zstd >/dev/null; then
	{ head -c 2000000 pax.tar | zstd -q -c; tail -c +2000001 pax.tar | zstd -q -c; } >pieces.zst
	same contents_zstd_frames pieces.zst pax.tar
fi

# What GNU tar makes of a real tree: sparse files in all its formats, devices, links, times.
make_tree() {
	mkdir -p g/dir g/sub
	truncate -s 5M g/hole
	truncate -s 3M g/ends && printf start | dd of=g/ends conv=notrunc status=none &&
		printf end | dd of=g/ends bs=1 seek=3145720 conv=notrunc status=none
	for i in 0 3 4 9 17 300; do
		printf 'piece %d' $i | dd of=g/pieces bs=5000 seek=$i conv=notrunc status=none
	done
	printf x | dd of=g/block bs=4096 seek=100 conv=notrunc status=none
	echo text >g/dir/file && ln g/dir/file g/sub/hard && ln -s ../dir/file g/sub/soft
	mkfifo g/fifo
	! is_root || { mknod g/char c 4 64; mknod g/block-dev b 259 65537; chown 12345:54321 g/dir/file; }
	touch -d '1960-02-03 04:05:06.5' g/sub
	touch -d '2100-02-03 04:05:06.789' g/dir
	chmod 7711 g/dir
	setfattr -n user.note -v 'of a file' g/dir/file 2>/dev/null
	setfattr -n user.note -v 'of a directory' g/dir 2>/dev/null
	:
}
make_tree
tar -C g --format=gnu -cf g-plain.tar .
same contents_gnu_tar g-plain.tar g-plain.tar
tar -C g --format=gnu -S -cf g-gnu.tar .
same contents_sparse_gnu g-gnu.tar g-plain.tar
for v in 0.0 0.1 1.0; do
	tar -C g --format=posix -S --sparse-version=$v --xattrs --xattrs-include='*' -cf g-$v.tar .
	same "contents_sparse_pax_$v" g-$v.tar g-$v.tar
done
# Python's reading of sparse files is checked by GNU tar's: the same names, sizes and sums.
if wants contents_sparse_agree; then
	hash=$(import g-1.0.tar)
	expect contents_sparse_agree "$(sha256sum g/hole g/ends g/pieces g/block | sed 's/ .*//')" \
		"$("$walk" "$(entry "$hash")" | awk '$1 ~ /^\/(hole|ends|pieces|block)$/ { print $1, $10 }' |
			sed 's/.*hole /1 &/; s/.*ends /2 &/; s/.*pieces /3 &/; s/.*block /4 &/' | sort | sed 's/.* //')"
fi
if is_root; then
	# Another implementation's reading of what was written.
	if wants contents_extracted; then
		hash=$(import g-plain.tar)
		mkdir x
		fsck.erofs --extract="$SCRATCH/t/x/g" --preserve "$(entry "$hash")" >fsck.log 2>&1 || cat fsck.log
		expect contents_extracted "" "$(diff -r --no-dereference g x/g 2>&1 | grep -vE 'is a (fifo|block|character)')"
	fi
else
	skip contents_extracted "not root"
fi
if [ -f "$TEST_CACHE/debian.tar" ]; then
	same contents_debian "$TEST_CACHE/debian.tar" "$TEST_CACHE/debian.tar"
	rm -rf "$cache"
else
	skip contents_debian "no Debian image is made yet (test/images.sh debian)"
fi

# ---- equal blocks are stored once

stored() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
mk blocks blocks.tar
same blocks_same blocks.tar blocks.tar
if wants blocks_stored; then
	hash=$(import blocks.tar)
	# 4 MiB, half of it again different, 2 tails, one short piece, one block of zeroes: 1540 and few more.
	n=$(image inspect --json "$hash" | stored stored_bytes)
	if [ "$n" -ge $((1536 * 4096)) ] && [ "$n" -le $((1560 * 4096)) ]; then
		pass blocks_stored
	else
		fail blocks_stored "$n bytes are stored, $(image inspect --json "$hash" | stored file_bytes) in files"
	fi
	size=$(stat -c %s "$(entry "$hash")")
	if [ "$size" -le $((n + 200000)) ]; then pass blocks_file; else fail blocks_file "the entry has $size bytes"; fi
fi

# ---- layers

mk member flat-empty.tar dir:x
mk member l1.tar dir:a file:a/1=one file:a/2=two dir:b file:b/x=x dir:b/deep file:b/deep/y=y dir:c file:c/y=y \
	file:top=top hard:top2=top dir:swap file:swap/in=in file:swap2=file link:swap3=a dir:keep file:keep/k=k \
	file:.wh=not dir:opq2 file:opq2/old=old dir:d file:d/f=f file:odd.wh.name=odd dir:gone file:gone/g=g
mk member l2.tar file:a/.wh.1= file:a/3=three dir:b file:b/.wh..wh..opq= file:b/new=new file:c/new=new file:.wh.c= \
	file:top=TOP file:swap=file dir:swap2 file:swap2/in=in dir:swap3 file:swap3/in=in hard:link-down=keep/k \
	file:.wh.nothing= file:nowhere/.wh.x= file:.wh..wh.plnk= file:opq2/new=new file:opq2/.wh..wh..opq= \
	file:.wh.gone= dir:d file:.wh.d=
mk member l3.tar file:a/1=again file:.wh.top2= dir:gone file:keep/.wh.k= link:late=a/1 file:late-dir/file=1
mk member flat.tar dir:a file:a/2=two file:a/3=three file:a/1=again dir:b file:b/new=new dir:c file:c/new=new \
	file:top=TOP file:swap=file dir:swap2 file:swap2/in=in dir:swap3 file:swap3/in=in dir:keep file:link-down=k \
	file:.wh=not dir:opq2 file:opq2/new=new dir:d file:odd.wh.name=odd dir:gone link:late=a/1 file:late-dir/file=1
mk archive docker.tar docker "$PWD/l1.tar" "$PWD/l2.tar" "$PWD/l3.tar"
same layers_docker docker.tar flat.tar
mk archive docker-first.tar docker order=first "$PWD/l1.tar" "$PWD/l2.tar" "$PWD/l3.tar"
same layers_docker_reversed docker-first.tar flat.tar
mk archive docker-oci.tar docker-oci "$PWD/l1.tar" "$PWD/l2.tar" "$PWD/l3.tar"
same layers_docker_25 docker-oci.tar flat.tar
mk archive links.tar docker links=1 "$PWD/l1.tar" "$PWD/l1.tar"
same layers_docker_links links.tar l1.tar
for how in none gzip zstd; do
	[ $how != zstd ] || command -v zstd >/dev/null || continue
	mk archive oci-$how.tar oci compress=$how "$PWD/l1.tar" "$PWD/l2.tar" "$PWD/l3.tar"
	same "layers_oci_$how" oci-$how.tar flat.tar
done
for index in nested multi; do
	mk archive oci-$index.tar oci index=$index "$PWD/l1.tar" "$PWD/l2.tar" "$PWD/l3.tar"
	same "layers_oci_$index" oci-$index.tar flat.tar
done
mk archive oci.tar.gz oci outer=gzip compress=gzip "$PWD/l1.tar" "$PWD/l2.tar" "$PWD/l3.tar"
same layers_oci_outer oci.tar.gz flat.tar
mk archive docker.tar.gz docker outer=gzip "$PWD/l1.tar" "$PWD/l2.tar" "$PWD/l3.tar"
same layers_docker_outer docker.tar.gz flat.tar
mk archive one.tar docker "$PWD/pax.tar"
same layers_one_pax one.tar pax.tar
mk archive empty-layer.tar oci "$PWD/l1.tar" "$PWD/flat-empty.tar"
mk member flat-e.tar copy:oci-layout=l1.tar # a root file system with a file of that name
same layers_not_oci flat-e.tar flat-e.tar
mk member looks.tar dir:blobs file:blobs/x=x file:manifest.json=[] file:etc=y
same layers_not_docker looks.tar looks.tar
# In a bare root file system whiteouts are names like others.
mk member wh.tar file:a=a file:.wh.a=b dir:d file:d/.wh..wh..opq=c
same whiteouts_only_in_layers wh.tar wh.tar

# ---- names that lead somewhere

mk member in.tar dir:usr/lib link:lib=usr/lib file:lib/f=1 link:abs=/usr/lib file:abs/g=2 dir:v link:v/up=../usr file:v/up/h=3
mk member in-flat.tar dir:usr/lib link:lib=usr/lib file:usr/lib/f=1 link:abs=/usr/lib file:usr/lib/g=2 dir:v link:v/up=../usr file:usr/h=3
same names_behind_links in.tar in-flat.tar
mk member dots.tar dir:./ dir:.//a///b file:./a/./b/c=c file:a/b/d=d
mk member dots-flat.tar dir:./ dir:a/b file:a/b/c=c file:a/b/d=d
same names_with_dots dots.tar dots-flat.tar

# ---- the configuration

busybox_tar=$("$ROOT/test/images.sh" busybox) || { fail "make the BusyBox image"; finish; }
conf='{"Env": ["PATH=/bin", "GREETING=hello world", "EMPTY="], "WorkingDir": "/home/user", "User": "1000:1001",
	"Entrypoint": ["/bin/sh", "-c", "echo $GREETING; pwd; id -u; id -g; echo \"$0 $1\""], "Cmd": ["zero", "one"]}'
for kind in docker oci docker-oci; do
	mk archive conf-$kind.tar $kind "config=$conf" compress=none "$busybox_tar"
	wants "config_$kind" || continue
	expect "config_$kind" "hello world,/home/user,1000,1001,zero one" \
		"$(box conf-$kind.tar 2>&1 | paste -sd,)"
done
if wants config_over; then
	expect config_over_cmd "hello world,/home/user,1000,1001,a b" "$(box conf-oci.tar -- a b 2>&1 | paste -sd,)"
	expect config_over_all "bye,/etc,0,0," "$(box --env GREETING=bye --cwd /etc --user 0:0 --entrypoint '' conf-oci.tar \
		-- sh -c 'echo $GREETING; pwd; id -u; id -g; echo' 2>&1 | paste -sd,)"
	expect config_known_from_cache "$conf" "$(image inspect --json conf-oci.tar | python3 -c '
import json, sys
got, want = json.load(sys.stdin)["config"], json.loads(sys.argv[1])
print(sys.argv[1] if got == want else json.dumps(got))' "$conf" 2>&1)"
	mk archive named.tar oci 'config={"User": "user:extra", "Cmd": ["/bin/sh", "-c", "id -u; id -g; echo $HOME"]}' "$busybox_tar"
	expect config_user_by_name "1000,1001,/home/user" "$(box named.tar 2>&1 | paste -sd,)"
	mk archive newdir.tar oci 'config={"WorkingDir": "/no/such/dir", "Cmd": ["/bin/pwd"]}' "$busybox_tar"
	box newdir.tar >out 2>&1
	expect_match config_missing_directory '^(0 /no/such/dir|125 .*/no/such/dir.*)$' "$? $(cat out)"
	mk archive nocmd.tar oci "$busybox_tar"
	box nocmd.tar >out 2>&1
	expect_match config_no_command '^125 1 kvmsbox: no command' "$? $(wc -l <out) $(cat out)"
fi

# ---- the cache

# reads FILE CMD…: how often CMD opens FILE or reads it through a descriptor.
reads() {
	local f=$1
	shift
	strace -f -qq -o "$SCRATCH/strace" -P "$f" -e trace=open,openat,openat2,read,pread64,preadv,mmap,sendfile,copy_file_range \
		"$@" >/dev/null 2>&1 </dev/null
	# strace shows what it can't attribute, too.
	grep -c "$(basename "$f")\|^[0-9]* *pread64" "$SCRATCH/strace"
}
cp "$busybox_tar" once.tar
if strace -o /dev/null true 2>/dev/null; then
	if wants cache_hit; then
		first=$(reads "$PWD/once.tar" timeout 60 "$KVMSBOX" image import --cache "$cache" "$PWD/once.tar")
		if [ "$first" -gt 5 ]; then pass cache_first_reads; else fail cache_first_reads "$first calls"; fi
		expect cache_hit_reads_nothing 0 "$(reads "$PWD/once.tar" timeout 60 "$KVMSBOX" image import --cache "$cache" "$PWD/once.tar")"
		expect cache_hit_exec_reads_nothing 0 "$(reads "$PWD/once.tar" timeout 60 "$KVMSBOX" exec --platform=ptrace --cache "$cache" "$PWD/once.tar" -- true)"
	fi
else
	skip cache_hit_reads_nothing "strace doesn't work here"
fi
# Reading nothing of the image but its ends: the same calls for an image a thousand times larger.
if wants cache_hit_work && strace -o /dev/null true 2>/dev/null; then
	work() {
		image import "$1" >/dev/null
		strace -f -qq -o "$SCRATCH/strace" "$KVMSBOX" image import --cache "$cache" "$1" >/dev/null
		wc -l <"$SCRATCH/strace"
	}
	head -c 40000000 /dev/urandom >40m
	mk member small.tar file:a=a
	mk member large.tar copy:a=40m
	a=$(work small.tar) b=$(work large.tar)
	if [ "$b" -le $((a + 2)) ]; then pass cache_hit_work; else fail cache_hit_work "$a calls for a small image, $b for a large one"; fi
fi
if wants cache_changed; then
	mk member ch.tar file:f=one file:g=1
	a=$(import ch.tar)
	cp -p ch.tar ch.ref
	mk member ch2.tar file:f=two file:g=1
	dd if=ch2.tar of=ch.tar conv=notrunc status=none
	touch -r ch.ref ch.tar # in place, the same size and time
	b=$(import ch.tar)
	if [ -n "$b" ] && [ "$a" != "$b" ]; then pass cache_changed_noticed; else fail cache_changed_noticed "$a and $b"; fi
	out=$("$here/compare.sh" "$walk" ch2.tar "$(entry "$b")")
	expect cache_changed_contents "" "$out"
	cp ch.ref ch.tar
	expect cache_changed_back "$a" "$(import ch.tar)"
	mv ch2.tar ch.tar
	expect cache_replaced_noticed "$b" "$(import ch.tar)"
	cp ch.tar ch-copy.tar
	expect cache_copy_same_entry "$b $(entries "$cache")" "$(import ch-copy.tar) $(entries "$cache")"
fi
if wants cache_default_dir; then
	XDG_CACHE_HOME=$SCRATCH/xdg "$KVMSBOX" image import l1.tar >/dev/null
	expect cache_xdg 1 "$(entries "$SCRATCH/xdg/kvmsbox")"
	HOME=$SCRATCH/home "$KVMSBOX" image import l1.tar >/dev/null
	expect cache_home 1 "$(entries "$SCRATCH/home/.cache/kvmsbox")"
fi

# damage NAME COMMAND…: after the command on the entry (as $e) the archive still gives the right image.
rm -rf "$cache"
cp "$busybox_tar" d.tar
damage() {
	local name=$1 script=$2 hash e out
	wants "$name" || return 0
	hash=$(import d.tar) && e=$(entry "$hash") || { fail "$name" "import"; return; }
	chmod u+w "$e"
	cp -p "$e" e.ref
	eval "$script"
	out=$(box d.tar -- cat /etc/motd 2>&1)
	[ "$out" = "a file of the image" ] || { fail "$name" "$out"; return; }
	cmp "$e" e.ref >/dev/null 2>&1 || { fail "$name" "the entry isn't as it was"; return; }
	out=$(image inspect --verify "$hash" 2>&1) || { fail "$name" "$out"; return; }
	out=$(strays "$cache")
	[ -z "$out" ] || { fail "$name" "left in the cache: $out"; return; }
	pass "$name"
}
flip() { # FILE OFFSET
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	printf "\\$(printf %03o $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
damage damage_flip_data 'flip "$e" 5000'
damage damage_flip_data_same_mtime 'flip "$e" 500000; touch -r e.ref "$e"'
damage damage_flip_superblock 'flip "$e" 1030'
damage damage_flip_metadata 'flip "$e" $(($(stat -c %s "$e") * 97 / 100))'
damage damage_flip_footer 'flip "$e" $(($(stat -c %s "$e") - 20))'
damage damage_flip_description 'flip "$e" $(($(stat -c %s "$e") - 120))'
damage damage_truncated 'truncate -s -1 "$e"'
damage damage_truncated_half 'truncate -s 700000 "$e"'
damage damage_truncated_empty 'truncate -s 0 "$e"'
damage damage_longer 'echo more >>"$e"'
damage damage_zeroes 'truncate -s 0 "$e"; truncate -s $(stat -c %s e.ref) "$e"'
damage damage_gone 'rm "$e"'
damage damage_directory 'rm "$e"; mkdir "$e"'
damage damage_link 'mv "$e" moved; ln -s "$PWD/moved" "$e"'
damage damage_fifo 'rm "$e"; mkfifo "$e"'
damage damage_other_image 'cp "$(entry "$(import l1.tar)")" tmp-e; mv tmp-e "$e"'
damage damage_key 'for k in "$cache"/*.key; do flip "$k" 40; done'
damage damage_key_empty 'for k in "$cache"/*.key; do : >"$k"; done'
damage damage_key_gone 'rm "$cache"/*.key'
damage damage_keys_swapped 'k=("$cache"/*.key); cat "${k[0]}" >swap; for k in "$cache"/*.key; do cat swap >"$k"; done'
damage damage_touched_only 'touch "$e"'
rm -rf "$cache"
if wants damage_reported; then
	hash=$(import d.tar)
	chmod u+w "$(entry "$hash")"
	flip "$(entry "$hash")" 300000
	image inspect --verify "$hash" >out 2>&1
	expect_match damage_reported '^125 kvmsbox: .*damaged' "$? $(cat out)"
	truncate -s 100000 "$(entry "$hash")"
	expect_match damage_listed '\(damaged\)' "$(image ls)"
	image rm "$hash"
	expect damage_removed 0 "$(entries "$cache")"
fi
# What was written before the machine last started, and not known to be on disk, is checked once.
if wants reboot; then
	if is_root && unshare -m true 2>/dev/null; then
		another_boot() { # runs kvmsbox after the Nth start of the machine
			echo "00000000-0000-0000-0000-00000000000$1" >boot
			shift
			unshare -m sh -c 'mount --bind boot /proc/sys/kernel/random/boot_id && exec "$@"' sh "$@" 2>&1 </dev/null
		}
		run=(timeout 60 "$KVMSBOX" exec --log-level=debug --cache "$cache" d.tar -- cat /etc/motd)
		import d.tar >/dev/null
		expect reboot_none 0 "$("${run[@]}" 2>&1 | grep -c 'checking all')"
		expect reboot_checked 1 "$(another_boot 1 "${run[@]}" | grep -c 'checking all')"
		expect reboot_checked_once 0 "$(another_boot 1 "${run[@]}" | grep -c 'checking all')"
	else
		skip reboot_checked "needs root and a mount namespace"
	fi
fi

# ---- races and kills

cat pax.tar >race.tar
# race NAME COUNT FILE…: that many imports of each file at once into an empty cache.
race() {
	local name=$1 count=$2 i f out pids=() d=$SCRATCH/race st=0
	shift 2
	wants "$name" || return 0
	rm -rf "$d" race.out.*
	for ((i = 0; i < count; i++)); do
		for f; do
			timeout 60 "$KVMSBOX" image import --cache "$d" "$f" >race.out.$i."$(basename "$f")" 2>&1 </dev/null &
			pids+=($!)
		done
	done
	for i in "${pids[@]}"; do wait "$i" || st=1; done
	out=$(cat race.out.* | sort -u)
	if [ $st -ne 0 ] || ! [[ $out =~ ^[0-9a-f]{32}$ ]]; then
		fail "$name" "$out"
	elif [ "$(entries "$d")" != 1 ] || [ -n "$(strays "$d")" ]; then
		fail "$name" "in the cache:" "$(ls -A "$d")"
	elif ! "$KVMSBOX" image inspect --cache "$d" --verify "$out" >/dev/null; then
		fail "$name" "the entry is damaged"
	else
		pass "$name"
	fi
}
race race_two 2 race.tar
race race_eight 8 race.tar
cp race.tar race2.tar
cp race.tar race3.tar
race race_copies 2 race.tar race2.tar race3.tar
export SHIM_NO_TMPFILE=1
export LD_PRELOAD=$shim
race race_named_temporaries 3 race.tar race2.tar
unset LD_PRELOAD
if wants race_reads_once; then
	# Who waits for another's import reads nothing itself.
	rm -rf "$SCRATCH/race"
	LD_PRELOAD=$shim SHIM_SLOW_MS=30 timeout 60 "$KVMSBOX" image import --cache "$SCRATCH/race" race.tar >r1 2>&1 </dev/null &
	pid=$!
	sleep 0.2
	n=$(reads "$PWD/race.tar" timeout 60 "$KVMSBOX" image import --cache "$SCRATCH/race" race.tar)
	wait $pid
	# It may open it, to be ready; it doesn't read it.
	if [ "$n" -le 2 ]; then pass race_reads_once; else fail race_reads_once "$n calls on the archive"; fi
fi
if wants race_with_bad; then
	# A failing import removes the directories it made, which another one may be about to use.
	head -c 2000000 pax.tar >cut.tar
	out=
	for i in 1 2 3 4 5 6 7 8 9 10; do
		rm -rf "$SCRATCH/race"
		timeout 60 "$KVMSBOX" image import --cache "$SCRATCH/race/deep/cache" cut.tar >/dev/null 2>&1 </dev/null &
		timeout 60 "$KVMSBOX" image import --cache "$SCRATCH/race/deep/cache" l1.tar >r1 2>&1 </dev/null || out=$out$(cat r1)
		wait
		[ "$(entries "$SCRATCH/race/deep/cache")" = 1 ] || out="$out no entry;"
	done
	expect race_with_bad "" "$out"
fi
if wants race_changed_while_read; then
	cp pax.tar moving.tar
	cp pax.tar shrinking.tar
	for f in moving shrinking; do
		rm -rf "$SCRATCH/race"
		LD_PRELOAD=$shim SHIM_SLOW_MS=30 timeout 60 "$KVMSBOX" image import --cache "$SCRATCH/race" $f.tar >r-$f 2>&1 </dev/null &
		pid=$!
		sleep 0.25
		if [ $f = moving ]; then
			printf x | dd of=moving.tar bs=1 seek=600 conv=notrunc status=none
		else
			truncate -s 1000000 shrinking.tar
		fi
		wait $pid
		expect_match race_$f '^125 kvmsbox: image .*(changed|shorter) while it was read: try again; none$' \
			"$? $(cat r-$f); $(ls -A "$SCRATCH/race" 2>/dev/null || echo none)"
	done
fi

# kill_rounds NAME ROUNDS ARCHIVE: killed at random moments; what is left is whole or is not there.
kill_rounds() {
	local name=$1 rounds=$2 tar=$3 d=$SCRATCH/kill i pid hash out took start killed=0 mid=0
	wants "$name" || return 0
	rm -rf "$d"
	start=$(date +%s%N)
	"$KVMSBOX" image import --cache "$d" "$tar" >/dev/null 2>&1
	took=$((($(date +%s%N) - start) / 1000)) # µs
	rm -rf "$d"
	for ((i = 0; i < rounds; i++)); do
		"$KVMSBOX" image import --cache "$d" "$tar" >/dev/null 2>&1 </dev/null &
		pid=$!
		sleep "$(printf '0.%06d' $(((RANDOM * 32768 + RANDOM) % (took + took / 4))))"
		! kill -KILL $pid 2>/dev/null || killed=$((killed + 1))
		wait $pid 2>/dev/null
		[ ! -d "$d" ] || [ -z "$(strays "$d")" ] || mid=$((mid + 1))
		for out in "$d"/*.erofs; do
			[ -e "$out" ] || continue
			if ! "$KVMSBOX" image inspect --cache "$d" --verify "$(basename "$out" .erofs)" >/dev/null 2>k.log; then
				fail "$name" "round $i left a broken entry:" "$(cat k.log)"
				return
			fi
			# The next round has something to do again.
			rm -f "$out"
		done
	done
	hash=$("$KVMSBOX" image import --cache "$d" "$tar" 2>&1) || { fail "$name" "afterwards: $hash"; return; }
	out=$("$KVMSBOX" image inspect --cache "$d" --verify "$hash" 2>&1) || { fail "$name" "$out"; return; }
	[ $killed -gt 0 ] || { fail "$name" "no import was killed while it ran"; return; }
	out=$(strays "$d"; find "$d" -name '*.key' -size 0; ls -A "$TMPDIR")
	if [ -n "$out" ]; then fail "$name" "left behind:" "$out"; else pass "$name"; fi
	KILL_LEFT=$mid
}
kill_rounds kill_rootfs 40 "$PWD/pax.tar.gzip"
kill_rounds kill_archive 20 "$PWD/one.tar"
export SHIM_NO_TMPFILE=1 LD_PRELOAD=$shim
KILL_LEFT=
kill_rounds kill_named_temporaries 30 "$PWD/pax.tar.gzip"
unset LD_PRELOAD SHIM_NO_TMPFILE
# Otherwise the test has tested nothing: named temporary files must have been left and swept.
[ -z "$KILL_LEFT" ] || expect_match kill_left_something_to_sweep '^[1-9]' "$KILL_LEFT"
if wants kill_by_term; then
	for s in TERM INT HUP; do
		rm -rf "$SCRATCH/kill"
		LD_PRELOAD=$shim SHIM_NO_TMPFILE=1 SHIM_SLOW_MS=30 env --default-signal=$s "$KVMSBOX" image import --cache "$SCRATCH/kill" race.tar >k.log 2>&1 </dev/null &
		pid=$!
		sleep 0.3
		kill -$s $pid
		wait $pid 2>/dev/null
		hash=$("$KVMSBOX" image import --cache "$SCRATCH/kill" l1.tar 2>&1)
		expect kill_by_$s "1 entries, strays:" "$(entries "$SCRATCH/kill") entries, strays:$(strays "$SCRATCH/kill")"
	done
fi

# ---- the progress bar

if wants progress; then
	rm -rf "$SCRATCH/bar"
	slow() { LD_PRELOAD=$shim SHIM_SLOW_MS=$1 "${@:2}" </dev/null; }
	slow 100 python3 "$here/stderr_tty.py" bar timeout 60 "$KVMSBOX" image import --cache "$SCRATCH/bar" race.tar >out
	expect_match progress_terminal 'importing race.tar \[#*-*\] +[0-9]+%' "$(tr '\r' '\n' <bar)"
	expect_match progress_moves '^[2-9]|^[1-9][0-9]' "$(tr '\r' '\n' <bar | grep -o '[0-9]*%' | sort -u | wc -l)"
	expect progress_erased $'\r\033[K' "$(tail -c 4 bar)"
	expect_match progress_hash '^[0-9a-f]{32}$' "$(cat out)"
	rm -rf "$SCRATCH/bar"
	python3 "$here/stderr_tty.py" bar timeout 60 "$KVMSBOX" image import --cache "$SCRATCH/bar" race.tar >out
	expect progress_not_when_fast "" "$(cat bar)"
	rm -rf "$SCRATCH/bar"
	slow 100 timeout 60 "$KVMSBOX" image import --cache "$SCRATCH/bar" race.tar >out 2>bar
	expect progress_not_to_a_file "" "$(cat bar)"
	rm -rf "$SCRATCH/bar"
	slow 100 python3 "$here/stderr_tty.py" bar timeout 60 "$KVMSBOX" image import --quiet --cache "$SCRATCH/bar" race.tar >out
	expect progress_quiet "" "$(cat bar)"
fi

# ---- limits

mk member zeroes.tar size:bomb=200000000 file:x=x
gzip -1 <zeroes.tar >bomb.tar.gz
bad bomb_bytes 'more than 104857600 bytes.*--image-max-bytes' --image-max-bytes 100M bomb.tar.gz
mk archive bomb-oci.tar oci compress=gzip "$PWD/zeroes.tar"
bad bomb_layer 'more than 104857600 bytes.*--image-max-bytes' --image-max-bytes 100M bomb-oci.tar
mk archive bomb-outer.tar.gz docker outer=gzip "$PWD/zeroes.tar"
bad bomb_outer 'more than 104857600 bytes.*--image-max-bytes' --image-max-bytes 100M bomb-outer.tar.gz
mk many many.tar 20000
gzip -1 <many.tar >many.tar.gz
bad bomb_entries 'more than 19999 files.*--image-max-entries' --image-max-entries 19999 many.tar.gz
if wants bomb_allowed; then
	expect_match bomb_exact '^[0-9a-f]{32}$' "$(import --image-max-entries 20000 many.tar.gz 2>&1)"
	expect_match bomb_bytes_exact '^[0-9a-f]{32}$' "$(import --image-max-bytes 200000001 bomb.tar.gz 2>&1)"
fi
# One member, a thousand directories that it implies.
mk member deep.tar "file:$(printf 'd/%.0s' {1..1000})f=x"
bad bomb_implied 'more than 500 files.*--image-max-entries' --image-max-entries 500 deep.tar
bad bomb_limit_zero 'image-max-bytes' --image-max-bytes 0 many.tar

# ---- bad input

bad bad_missing 'nosuch.tar: No such file' "$PWD/nosuch.tar"
bad bad_directory 'is a directory: pack it' "$PWD"
mkfifo a-fifo
bad bad_fifo 'not a regular file' a-fifo
bad bad_device 'not a regular file' /dev/null
: >empty.tar
bad bad_empty 'is empty' empty.tar
echo "this is no archive" >text.tar
bad bad_text 'not a tar archive' text.tar
head -c 1000000 /dev/urandom >random.tar
bad bad_random 'not a tar archive' random.tar
head -c 10240 /dev/zero >zero.tar
bad bad_no_members 'holds no files' zero.tar
tar -cf none.tar --files-from=/dev/null
bad bad_no_files 'holds no files' none.tar
gzip -c text.tar >text.gz
bad bad_gzipped_text 'not a tar archive' text.gz
# Cut at a header, in a header, in data, before the end marker.
for n in 512 700 3000 1000000 2222080; do
	head -c $n pax.tar >cut-$n.tar
	bad bad_truncated_$n 'truncated' cut-$n.tar
done
mk member ends.tar file:a=a
head -c 1024 ends.tar >cut-end.tar
bad bad_no_end_marker 'truncated: it has no end marker' cut-end.tar
for z in gzip xz zstd bzip2; do
	[ -f pax.tar.$z ] || continue
	head -c $(($(stat -c %s pax.tar.$z) * 2 / 3)) pax.tar.$z >cut.$z
	bad bad_truncated_$z 'truncated or damaged' cut.$z
	cp pax.tar.$z flipped.$z
	flip flipped.$z $(($(stat -c %s flipped.$z) / 2))
	bad bad_flipped_$z 'truncated or damaged' flipped.$z
done
cp l1.tar header.tar
flip header.tar 100
bad bad_header_checksum 'not a tar archive|damaged' header.tar
mk member up.tar file:a=a file:../up=x
bad bad_dotdot 'member \.\./up leads out of the image' up.tar
mk member up2.tar dir:a file:a/b/../../../up=x
bad bad_dotdot_inside 'leads out of the image by' up2.tar
mk member up3.tar dir:a hard:a/x=../../etc/passwd
bad bad_dotdot_hardlink '\.\./\.\./etc/passwd leads out of the image' up3.tar
mk member abs.tar file:/etc/passwd=x
bad bad_absolute 'absolute name' abs.tar
mk member abs2.tar file:a=a hard:b=/etc/passwd
bad bad_absolute_hardlink 'absolute name' abs2.tar
mk member out.tar link:out=../../.. file:out/etc/x=x
bad bad_link_outside 'out/etc/x lies behind a symbolic link that leads out of the image' out.tar
mk member out2.tar link:out=/no/such/place file:out/x=x
bad bad_link_to_nothing 'leads to nothing in the image' out2.tar
mk member out3.tar link:a=b link:b=a file:a/x=x
bad bad_link_loop 'too many symbolic links' out3.tar
mk member out4.tar dir:d link:d/l=../../../../tmp file:d/l/x=x
bad bad_link_climbs 'leads out of the image' out4.tar
mk member hard.tar file:a=a hard:b=missing
bad bad_hardlink_missing 'hard link to missing, which is not in the archive' hard.tar
mk member hard2.tar dir:d hard:b=d
bad bad_hardlink_directory 'which is a directory' hard2.tar
mk member hard3.tar hard:a=a
bad bad_hardlink_itself 'not in the archive' hard3.tar
mk member under.tar file:a=a file:a/b=b
bad bad_below_a_file 'a/b lies in "a", which is no directory' under.tar
mk member root.tar link:.=x
bad bad_root_is_link 'root is a member that is no directory' root.tar
mk member name.tar "file:$(printf 'x%.0s' {1..256})=x"
bad bad_long_name 'too long' name.tar
mk member path.tar "file:$(printf 'dddddddd/%.0s' {1..500})f=x"
bad bad_long_path 'too long' path.tar
mk member ctl.tar $'file:../\033[31m\nx=x'
bad bad_control_characters 'leads out' ctl.tar
mk member c1.tar $'file:../\302\233x=x'
bad bad_c1_control_characters 'member \.\./\?\?x leads out' c1.tar
mk member empty-link.tar link:a=
bad bad_empty_link 'empty or too long' empty-link.tar

mkdir hostile
mk hostile hostile
for f in hostile/*.tar; do
	name=$(basename "$f" .tar)
	bad "hostile_${name//-/_}" 'image hostile/.*\.tar: ' "$f"
done
bad hostile_keeps_terminal_clean 'several images \(a:1\?\?\[31m' hostile/docker-many-images.tar
for broken in digest missing config manifest size json; do
	for kind in oci docker; do
		[ $kind = oci ] || [[ $broken == digest || $broken == missing || $broken == config || $broken == json ]] || continue
		mk archive broken-$kind-$broken.tar $kind break=$broken "$PWD/l1.tar" "$PWD/blocks.tar" || continue
		case $kind-$broken in
		*-digest) want="doesn't match its digest" ;;
		*-missing) want='is missing' ;;
		*) want='image broken-' ;;
		esac
		case $kind-$broken in
		# Nothing says it's an archive's manifest, or that a layer's size is wrong when its digest is right.
		docker-json | oci-size) continue ;;
		esac
		bad "broken_${kind}_$broken" "$want" broken-$kind-$broken.tar
	done
done
mk archive broken-z.tar oci compress=gzip break=digest "$PWD/blocks.tar"
bad broken_oci_compressed_digest "doesn't match its digest" broken-z.tar
mk archive ambiguous.tar oci index=ambiguous "$PWD/l1.tar"
bad broken_oci_ambiguous 'several images' ambiguous.tar
mk archive arm.tar oci arch=arm64 "$PWD/l1.tar"
bad broken_oci_arch 'linux/arm64: one for linux/amd64 is needed' arm.tar
mk archive arm.tar docker arch=arm64 "$PWD/l1.tar"
bad broken_docker_arch 'linux/arm64: one for linux/amd64 is needed' arm.tar
export LD_PRELOAD=$shim SHIM_FAIL_READ=3
bad bad_read_error 'reading it failed: Input/output error' race.tar
unset LD_PRELOAD SHIM_FAIL_READ

# ---- caches that can't be written

echo text >a-file
BAD_CACHE=$PWD/a-file bad cache_is_a_file 'a-file.*Not a directory' l1.tar
BAD_CACHE=$PWD/a-file/below bad cache_below_a_file 'a-file/below.*Not a directory.*--cache' l1.tar
if is_root; then
	mkdir -m 755 "$SCRATCH/roots"
	chmod 644 l1.tar
	BAD_RUN=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	BAD_CACHE=$SCRATCH/roots bad cache_not_writable 'roots: Permission denied.*--cache' l1.tar
	BAD_CACHE=$SCRATCH/roots/new bad cache_not_creatable 'roots/new: Permission denied.*--cache' l1.tar
	chmod 600 l2.tar
	bad bad_unreadable 'l2.tar: Permission denied' l2.tar
	BAD_RUN=()
	if mkdir "$SCRATCH/ro" && mount -t tmpfs -o size=64M tmpfs "$SCRATCH/ro" 2>/dev/null; then
		hash=$("$KVMSBOX" image import --cache "$SCRATCH/ro/cache" l1.tar)
		mount -o remount,ro "$SCRATCH/ro"
		BAD_CACHE=$SCRATCH/ro/cache bad cache_read_only 'Read-only file system.*--cache' l3.tar
		expect cache_read_only_hit "$hash" "$("$KVMSBOX" image import --cache "$SCRATCH/ro/cache" l1.tar 2>&1)"
		umount "$SCRATCH/ro"
		# Full at every stage: while data is written, at the end, and with nothing at all left.
		mk archive docker-big.tar.gz docker outer=gzip "$PWD/pax.tar"
		# The last one lacks room for the very end.
		for size in 4k 64k 1M 2M $(($(du -k "$(entry "$(import race.tar)")" | cut -f 1) - 4))k; do
			mount -t tmpfs -o size=$size tmpfs "$SCRATCH/ro"
			mkdir "$SCRATCH/ro/c" 2>/dev/null
			BAD_CACHE=$SCRATCH/ro/c bad cache_full_$size 'No space left on device' race.tar
			BAD_CACHE=$SCRATCH/ro/c bad cache_full_archive_$size 'No space left on device' docker-big.tar.gz
			rmdir "$SCRATCH/ro/c" || fail "cache_full_$size isn't empty"
			umount "$SCRATCH/ro"
		done
		mount -t tmpfs -o size=64M,nr_inodes=3 tmpfs "$SCRATCH/ro"
		mkdir "$SCRATCH/ro/c"
		BAD_CACHE=$SCRATCH/ro/c bad cache_no_inodes 'No space left on device' race.tar
		umount "$SCRATCH/ro"
	else
		skip cache_read_only "tmpfs can't be mounted"
		skip cache_full "tmpfs can't be mounted"
	fi
	# A cache that a user can read but not write serves what is in it.
	if wants cache_of_another; then
		rm -rf "$SCRATCH/roots"
		hash=$("$KVMSBOX" image import --cache "$SCRATCH/roots" l1.tar)
		chmod -R a+rX "$SCRATCH/roots"
		expect cache_of_another_user "$hash" "$(setpriv --reuid=65534 --regid=65534 --clear-groups \
			"$KVMSBOX" image import --cache "$SCRATCH/roots" l1.tar 2>&1)"
	fi
else
	mkdir -m 555 "$SCRATCH/roots"
	BAD_CACHE=$SCRATCH/roots bad cache_not_writable 'roots: Permission denied.*--cache' l1.tar
	skip cache_full "not root"
fi

# ---- image ls, inspect, rm

if wants command; then
	rm -rf "$cache"
	expect command_ls_nothing "" "$(image ls 2>&1)"
	expect command_ls_json_nothing "[]" "$(image ls --json 2>&1)"
	a=$(import l1.tar) b=$(import flat.tar) c=$(import docker.tar)
	expect command_ls "$a l1.tar,$b flat.tar,$c docker.tar" "$(image ls | tail -n +2 | awk '{ print $1, $4 }' | paste -sd,)"
	expect command_ls_json "$a l1.tar rootfs 0,$b flat.tar rootfs 0,$c docker.tar docker 3" "$(image ls --json | python3 -c '
import json, sys
print(",".join("%s %s %s %d" % (e["hash"], e["source"], e["format"], e["layers"]) for e in json.load(sys.stdin)))')"
	expect_match command_inspect "^hash +$a" "$(image inspect "${a:0:6}")"
	expect_match command_inspect_archive "^hash +$b" "$(image inspect flat.tar)"
	expect_match command_inspect_verify 'every block' "$(image inspect --verify "$c")"
	expect command_inspect_counts "26 $a" "$(image inspect --json "$a" | python3 -c '
import json, sys
e = json.load(sys.stdin)
print(e["entries"], e["hash"])')"
	image rm "${a:0:8}" || fail command_rm_prefix
	expect command_rm 2 "$(entries "$cache")"
	image rm "$a" >out 2>&1
	expect_match command_rm_again '^125 kvmsbox: .*not in the cache' "$? $(cat out)"
	image rm flat.tar || fail command_rm_archive
	expect command_rm_leaves "$c.erofs 1" "$(cd "$cache" && ls ./*.erofs | cut -c3-) $(find "$cache" -name '*.key' | wc -l)"
	image rm --all || fail command_rm_all
	expect command_rm_all "" "$(ls -A "$cache")"
	for args in "rm" "rm --all x" "inspect" "inspect a b" "ls x" "import" "frob" "ls --frob" "import --image-max-bytes x y" \
		"import --image-max-entries -1 y" "inspect ffff" "rm ..%2f" "rm ../cache" "inspect --cache"; do
		# shellcheck disable=SC2086
		image $args >out 2>&1
		expect_match "command_usage '$args'" '^125 1 kvmsbox: ' "$? $(wc -l <out) $(cat out)"
	done
	cp l1.tar $'control-\033[1m-\302\233.tar'
	import $'control-\033[1m-\302\233.tar' >/dev/null
	expect_match command_ls_clean ' control-\?\[1m-\?\?\.tar$' "$(image ls)"
	image rm --all
	# A sandbox goes on when its image is removed.
	import once.tar >/dev/null
	box once.tar -- sh -c 'echo started; sleep 1; cat /etc/motd; ls -l /bin >/dev/null && echo listed' >out 2>&1 &
	pid=$!
	for i in {1..100}; do grep -q started out && break; sleep 0.05; done
	image rm once.tar || fail command_rm_running
	wait $pid
	expect command_rm_while_running "started,a file of the image,listed" "$(paste -sd, out)"
fi

# ---- EROFS files as they are

if wants erofs; then
	hash=$(import once.tar)
	cp "$(entry "$hash")" own.erofs
	expect erofs_own "a file of the image" "$(box "$PWD/own.erofs" -- cat /etc/motd 2>&1)"
	# Without what we put behind, it is any EROFS.
	size=$(image inspect --json "$hash" | stored image_bytes)
	head -c "$size" own.erofs >bare.erofs
	expect erofs_bare "a file of the image" "$(box "$PWD/bare.erofs" -- cat /etc/motd 2>&1)"
	expect erofs_not_copied 0 "$(find "$cache" -newer bare.erofs -name '*.erofs' | wc -l)"
	head -c 100000 own.erofs >cut.erofs
	bad erofs_truncated 'cut.erofs: this EROFS file is damaged|is an EROFS' cut.erofs
	if command -v mkfs.erofs >/dev/null && is_root; then
		mkdir bb && tar -C bb -xf "$busybox_tar"
		mkfs.erofs foreign.erofs bb >/dev/null 2>&1
		expect erofs_foreign "a file of the image" "$(box "$PWD/foreign.erofs" -- cat /etc/motd 2>&1)"
		# The image has no /etc/hosts: the sandbox makes one.
		expect erofs_foreign_find "$( (find bb | sed 's/^bb//; s/^$/\//'; echo /etc/hosts) | sort | sha256sum)" \
			"$(box "$PWD/foreign.erofs" -- find / -xdev 2>&1 | sort | sha256sum)"
		mkfs.erofs -zlz4 packed.erofs bb >/dev/null 2>&1
		box packed.erofs -- true >out 2>&1
		expect_match erofs_compressed '^125 kvmsbox: .*compressed' "$? $(cat out)"
	else
		skip erofs_foreign "mkfs.erofs is not installed, or not root"
	fi
fi
finish
