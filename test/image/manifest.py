#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a tree holds, one line per name, in a form that can be compared.

    manifest.py tar ARCHIVE            as Python's tarfile reads it (independent of libarchive)
    manifest.py image WALK IMAGE       as WALK (walk.c) prints it

Names of one inode show the first of them instead of an inode number. The root of a tar that has no
member for it is left out of the comparison's attributes by --no-root.
"""
import hashlib
import subprocess
import sys
import tarfile


def escape(b):
    return ''.join('\\x%02x' % c if c <= 0x20 or c >= 0x7f or c in b'\\=' else chr(c) for c in b)


def raw(s):
    return s.encode('utf-8', 'surrogateescape')


def clean(name):
    return b'/' + b'/'.join(p for p in raw(name).split(b'/') if p not in (b'', b'.'))


def mtime(m):
    text = m.pax_headers.get('mtime')
    if text is None:
        return '%d.%09d' % (int(m.mtime), 0)
    sec, _, frac = text.partition('.')
    frac = (frac + '0' * 9)[:9]
    if sec.startswith('-') and int(frac):  # rounds down
        return '%d.%09d' % (int(sec) - 1, 10**9 - int(frac))
    return '%s.%s' % (sec, frac)


def put(names, p, i):
    old = names.get(p)
    if old and old['mode'] >> 12 == 4 and i['mode'] >> 12 != 4:  # with all that was in it
        for below in [n for n in names if n.startswith(p + b'/')]:
            del names[below]
    names[p] = i


def from_tar(path):
    kinds = {tarfile.REGTYPE: 0o100000, tarfile.AREGTYPE: 0o100000, tarfile.CONTTYPE: 0o100000,
             tarfile.GNUTYPE_SPARSE: 0o100000, tarfile.DIRTYPE: 0o040000,
             tarfile.SYMTYPE: 0o120000, tarfile.CHRTYPE: 0o020000, tarfile.BLKTYPE: 0o060000,
             tarfile.FIFOTYPE: 0o010000}
    names = {}  # path -> inode (a dict)
    with tarfile.open(path, encoding='utf-8', errors='surrogateescape') as t:
        for m in t:
            p = clean(m.name)
            if m.type == tarfile.LNKTYPE:
                put(names, p, names[clean(m.linkname)])
                continue
            i = {'mode': kinds[m.type] | (m.mode & 0o7777), 'uid': m.uid, 'gid': m.gid,
                 'mtime': mtime(m), 'size': 0, 'dev': '0:0', 'what': '-'}
            if m.isfile() or m.type == tarfile.GNUTYPE_SPARSE:
                h = hashlib.sha256()
                f = t.extractfile(m)
                while chunk := f.read(1 << 20):
                    h.update(chunk)
                i['size'] = m.size
                i['what'] = h.hexdigest()
            elif m.issym():
                i['size'] = len(raw(m.linkname))
                i['what'] = '->' + escape(raw(m.linkname))
            elif m.ischr() or m.isblk():
                i['dev'] = '%d:%d' % (m.devmajor, m.devminor)
            prefix = 'SCHILY.xattr.'
            i['xattrs'] = ''.join(
                ' %s=%s' % (escape(raw(k[len(prefix):])), escape(raw(v)))
                for k, v in sorted(m.pax_headers.items()) if k.startswith(prefix))
            put(names, p, i)
    # Directories that no member describes.
    for p in list(names):
        while p := p[:p.rfind(b'/')]:
            names.setdefault(p, None)
    subdirs, first, links = {}, {}, {}
    for p, i in names.items():
        if i is None or i['mode'] >> 12 == 4:
            if p != b'/':
                up = p[:p.rfind(b'/')] or b'/'
                subdirs[up] = subdirs.get(up, 0) + 1
        else:
            first[id(i)] = min(first.get(id(i), p), p)
            links[id(i)] = links.get(id(i), 0) + 1
    for p, i in names.items():
        if i is None:
            yield p, '%s implied' % escape(p)
            continue
        is_dir = i['mode'] >> 12 == 4
        yield p, '%s %o %d %d %s %d %s %d %s %s%s' % (
            escape(p), i['mode'], i['uid'], i['gid'], i['mtime'], i['size'], i['dev'],
            2 + subdirs.get(p, 0) if is_dir else links[id(i)],
            '-' if is_dir else escape(first[id(i)]), i['what'], i['xattrs'])


def from_image(walk, path):
    p = subprocess.run([walk, path], stdout=subprocess.PIPE)
    lines = [line.split(' ') for line in p.stdout.decode().splitlines()]
    first = {}
    for f in lines:
        if f[0] == '!':
            yield b'!', ' '.join(f)
            continue
        name = f[0].encode().decode('unicode_escape').encode('latin-1')
        if f[8] not in first or name < first[f[8]][0]:
            first[f[8]] = (name, f[0])
    if p.returncode:
        yield b'!', '! walk ended with status %d' % p.returncode
    for f in lines:
        if f[0] == '!':
            continue
        name = f[0].encode().decode('unicode_escape').encode('latin-1')
        f[8] = '-' if int(f[1], 8) >> 12 == 4 else first[f[8]][1]
        yield name, ' '.join(f)


def main():
    if sys.argv[1] == 'tar':
        entries = dict(from_tar(sys.argv[2]))
    else:
        entries = {}
        for name, line in from_image(sys.argv[2], sys.argv[3]):
            entries.setdefault(name if name != b'!' else b'!' + line.encode(), line)
    for name in sorted(entries):
        print(entries[name])


main()
