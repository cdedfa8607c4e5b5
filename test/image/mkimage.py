#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the archives that test/image/run.sh imports.

    mkimage.py tree OUT pax|gnu|ustar      a tree with everything a tar can hold
    mkimage.py member OUT SPEC…            a small tar, member by member:
        dir:NAME file:NAME=TEXT link:NAME=TARGET hard:NAME=TARGET size:NAME=BYTES fifo:NAME
        copy:NAME=FILE
    mkimage.py hostile DIR                 archives with manifests that nobody should write
    mkimage.py many OUT N                  N empty files
    mkimage.py blocks OUT                  files that share blocks
    mkimage.py archive OUT KIND [OPTION…] LAYER…
        KIND: docker (docker save until 24), docker-oci (from 25 on), oci
        compress=gzip|zstd|none  arch=ARCH  index=nested|multi|ambiguous  order=last|first
        config=JSON  break=digest|missing|config|manifest|size|json  outer=gzip|none  links=1
"""
import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile


def info(name, kind=tarfile.REGTYPE, size=0, **more):
    i = tarfile.TarInfo(name)
    i.type = kind
    i.size = size
    i.mtime = 1700000000
    i.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for k, v in more.items():
        setattr(i, k, v)
    return i


def tree(out, fmt):
    fmt = {'pax': tarfile.PAX_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'ustar': tarfile.USTAR_FORMAT}[fmt]
    rng = random.Random(1)
    t = tarfile.open(out, 'w', format=fmt, encoding='utf-8', errors='surrogateescape')

    def add(name, kind=tarfile.REGTYPE, data=b'', **more):
        if fmt == tarfile.USTAR_FORMAT:
            more.pop('pax_headers', None)
        t.addfile(info(name, kind, len(data), **more), io.BytesIO(data))

    add('.', tarfile.DIRTYPE, mode=0o1755, uid=7, gid=8)
    add('./etc', tarfile.DIRTYPE)
    for size in (0, 1, 63, 4095, 4096, 4097, 8192, 65536, 1048576, 1048577):
        add('./etc/size-%d' % size, data=rng.randbytes(size))
    add('./etc/zeroes', data=bytes(100000))
    add('./etc/setuid', data=b'x', mode=0o6755, uid=0, gid=4)
    add('./etc/ids', data=b'', uid=2097151, gid=2097151)
    add('./etc/hard', tarfile.LNKTYPE, linkname='./etc/size-4096')
    add('./hard-top', tarfile.LNKTYPE, linkname='etc/size-4096')
    add('./ln', tarfile.SYMTYPE, linkname='etc/size-1')
    add('./ln-abs', tarfile.SYMTYPE, linkname='/etc/size-1')
    add('./ln-out', tarfile.SYMTYPE, linkname='../../../../etc/passwd')
    add('./ln-gone', tarfile.SYMTYPE, linkname='no/such')
    add('./ln-hard', tarfile.LNKTYPE, linkname='./ln')
    add('./dev', tarfile.DIRTYPE)
    add('./dev/null', tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    add('./dev/big', tarfile.CHRTYPE, devmajor=300, devminor=70000)
    add('./dev/sda', tarfile.BLKTYPE, devmajor=8, devminor=0)
    add('./dev/fifo', tarfile.FIFOTYPE)
    add('./empty', tarfile.DIRTYPE, mode=0)
    add('./implied/deep/er/file', data=b'no directory members')
    # Sorted before, between and behind "." and ".."
    for name in ('!', '#', '-', '.a', '...', '..a', '. ', '/'.join(['0'] * 90), '~', '\x01', 'a\nb',
                 'a b', 'a\\b', '-rf'):
        add('./odd/' + name, data=name.encode())
    for name in ('e\u0301', '\u00e9', '\u65e5\u672c', 'bad\udcff\udc80'):
        add('./odd/' + name, data=name.encode('utf-8', 'surrogateescape'))
    for i in range(3000):  # several blocks
        add('./many/%s%d' % ('n' * (i % 40), i))
    for n in (1, 339, 340, 341, 342):  # around one block
        for i in range(n):
            add('./edge-%d/%d' % (n, i))
    # A file again: the later one counts; a directory in place of a file and the other way round.
    add('./twice', data=b'first')
    add('./twice', data=b'second')
    add('./turn', data=b'file')
    add('./turn', tarfile.DIRTYPE)
    add('./turn2', tarfile.DIRTYPE)
    add('./turn2/child', data=b'gone')
    add('./turn2', data=b'file')
    # A member behind a link that stays in the image.
    add('./usr/lib', tarfile.DIRTYPE)
    add('./lib', tarfile.SYMTYPE, linkname='usr/lib')
    if fmt != tarfile.USTAR_FORMAT:
        long = 'l' * 255
        add('./long/' + long, data=b'long name')
        add('./long/' + '/'.join(['d' * 200] * 15), data=b'long path')
        add('./long/ln', tarfile.SYMTYPE, linkname='t/' * 2000 + 'end')
        add('./long/ln-hard', tarfile.LNKTYPE, linkname='./long/' + long)
        add('./long/ids', data=b'', uid=4000000000, gid=3000000000)
        add('./long/old', data=b'', mtime=-1000)
    if fmt == tarfile.PAX_FORMAT:
        x = 'SCHILY.xattr.'
        add('./xattr', data=b'x', pax_headers={
            x + 'user.comment': 'a value', x + 'user.empty': '', x + 'trusted.t': '1',
            x + 'user.' + 'n' * 200: 'v' * 3000, x + 'security.selinux': 'a:b:c'})
        add('./xattr-dir', tarfile.DIRTYPE, pax_headers={x + 'user.big': 'v' * 60000})
        add('./nsec', data=b'', pax_headers={'mtime': '1700000000.123456789'})
        add('./nsec-old', data=b'', pax_headers={'mtime': '-5.25'})
        add('./ln-xattr', tarfile.SYMTYPE, linkname='q' * 3000,
            pax_headers={x + 'trusted.t': 'w' * 2000})
    t.close()


def member(out, *specs):
    t = tarfile.open(out, 'w', format=tarfile.PAX_FORMAT, encoding='utf-8',
                     errors='surrogateescape')
    for spec in specs:
        kind, _, rest = spec.partition(':')
        name, _, value = rest.partition('=')
        if kind == 'dir':
            t.addfile(info(name, tarfile.DIRTYPE))
        elif kind == 'file':
            t.addfile(info(name, size=len(value)), io.BytesIO(value.encode()))
        elif kind == 'link':
            t.addfile(info(name, tarfile.SYMTYPE, linkname=value))
        elif kind == 'hard':
            t.addfile(info(name, tarfile.LNKTYPE, linkname=value))
        elif kind == 'copy':
            data = open(value, 'rb').read()
            t.addfile(info(name, size=len(data)), io.BytesIO(data))
        elif kind == 'fifo':
            t.addfile(info(name, tarfile.FIFOTYPE))
        elif kind == 'size':
            t.addfile(info(name, size=int(value)), io.BytesIO(bytes(int(value))))
        else:
            raise SystemExit('unknown member ' + spec)
    t.close()


def many(out, n):
    t = tarfile.open(out, 'w', format=tarfile.USTAR_FORMAT)
    for i in range(int(n)):
        t.addfile(info('f%d' % i))
    t.close()


def blocks(out):
    rng = random.Random(2)
    a = rng.randbytes(4 << 20)
    half = a[:2 << 20] + rng.randbytes(2 << 20)
    shuffled = bytearray(a)
    for i in range(0, len(a), 8192):  # same blocks, another order
        shuffled[i:i + 4096], shuffled[i + 4096:i + 8192] = a[i + 4096:i + 8192], a[i:i + 4096]
    t = tarfile.open(out, 'w', format=tarfile.USTAR_FORMAT)
    for name, data in (('a', a), ('same', a), ('half', half), ('shuffled', bytes(shuffled)),
                       ('repeated', a[:4096] * 1024), ('tail', a + b'x'), ('short', a[:5000]),
                       ('short-same', a[:5000]), ('zeroes', bytes(4 << 20))):
        t.addfile(info(name, size=len(data)), io.BytesIO(data))
    t.close()


def squeeze(data, how):
    if how == 'gzip':
        return gzip.compress(data, 1, mtime=0)
    if how == 'zstd':
        return subprocess.run(['zstd', '-q', '-c'], input=data, stdout=subprocess.PIPE,
                              check=True).stdout
    return data


def archive(out, kind, *args):
    opt = dict(a.split('=', 1) for a in args if '=' in a.split('/')[0])
    layers = [open(a, 'rb').read() for a in args if '=' not in a.split('/')[0]]
    how = opt.get('compress', 'none')
    broken = opt.get('break')
    files = []  # (name, bytes) or (name, link target)

    def sha(data):
        return hashlib.sha256(data).hexdigest()

    def blob(data):
        files.append(('blobs/sha256/' + sha(data), data))
        return sha(data)

    config = json.loads(opt.get('config', '{}'))
    doc = {'architecture': opt.get('arch', 'amd64'), 'os': 'linux', 'config': config,
           'rootfs': {'type': 'layers', 'diff_ids': ['sha256:' + sha(x) for x in layers]}}
    doc = json.dumps(doc).encode()
    if broken == 'config':
        doc = b'{"architecture": "amd64", "config": {"Env": 5}}'
    packed = [squeeze(x, how) for x in layers]
    manifest_list = None
    if kind == 'docker':
        names = []
        for i, x in enumerate(packed):
            d = sha(('id%d' % i).encode())
            files.append((d + '/VERSION', b'1.0'))
            files.append((d + '/json', b'{}'))
            if opt.get('links') and i:
                files.append((d + '/layer.tar', '../%s/layer.tar' % names[0].split('/')[0]))
            else:
                files.append((d + '/layer.tar', x))
            names.append(d + '/layer.tar')
        files.append((sha(doc) + '.json', doc))
        manifest_list = [{'Config': sha(doc) + '.json', 'RepoTags': ['test:latest'],
                          'Layers': names}]
    else:
        media = 'application/vnd.oci.image.'
        ext = {'none': '', 'gzip': '+gzip', 'zstd': '+zstd'}[how]
        descs = []
        for x in packed:
            descs.append({'mediaType': media + 'layer.v1.tar' + ext, 'size': len(x),
                          'digest': 'sha256:' + blob(x)})
        manifest = {'schemaVersion': 2, 'mediaType': media + 'manifest.v1+json',
                    'config': {'mediaType': media + 'config.v1+json', 'size': len(doc),
                               'digest': 'sha256:' + blob(doc)},
                    'layers': descs}
        if broken == 'manifest':
            del manifest['layers']
        data = json.dumps(manifest).encode()
        mine = {'mediaType': manifest['mediaType'], 'size': len(data),
                'digest': 'sha256:' + blob(data),
                'annotations': {'org.opencontainers.image.ref.name': 'latest'}}
        manifests = [mine]
        if opt.get('index') in ('nested', 'multi'):
            mine['platform'] = {'os': 'linux', 'architecture': 'amd64'}
            other = json.dumps({'schemaVersion': 2, 'config': {}, 'layers': []}).encode()
            od = {'mediaType': manifest['mediaType'], 'size': len(other),
                  'digest': 'sha256:' + blob(other)}
            manifests = [dict(od, platform={'os': 'linux', 'architecture': 'arm64'}), mine,
                         dict(od, platform={'os': 'unknown', 'architecture': 'unknown'},
                              annotations={'vnd.docker.reference.type': 'attestation-manifest'})]
        if opt.get('index') == 'ambiguous':
            other = json.dumps({'schemaVersion': 2, 'config': {}, 'layers': []}).encode()
            manifests.append({'mediaType': manifest['mediaType'], 'size': len(other),
                              'digest': 'sha256:' + blob(other),
                              'annotations': {'org.opencontainers.image.ref.name': 'other'}})
        if opt.get('index') == 'nested':
            data = json.dumps({'schemaVersion': 2, 'manifests': manifests}).encode()
            manifests = [{'mediaType': media + 'index.v1+json', 'size': len(data),
                          'digest': 'sha256:' + blob(data)}]
        files.append(('index.json', json.dumps({'schemaVersion': 2,
                                                'manifests': manifests}).encode()))
        files.append(('oci-layout', b'{"imageLayoutVersion": "1.0.0"}'))
        if kind == 'docker-oci':
            manifest_list = [{'Config': 'blobs/sha256/' + sha(doc), 'RepoTags': ['test:latest'],
                              'Layers': ['blobs/sha256/' + sha(x) for x in packed]}]
    if manifest_list is not None:
        files.append(('manifest.json', json.dumps(manifest_list).encode()))
        files.append(('repositories', b'{}'))
    biggest = max((f for f in files if isinstance(f[1], bytes)), key=lambda f: len(f[1]))
    if broken == 'digest':
        data = bytearray(biggest[1])
        data[len(data) // 2] ^= 1
        files[files.index(biggest)] = (biggest[0], bytes(data))
    elif broken == 'missing':
        files.remove(biggest)
    elif broken == 'json':
        files = [(n, b'{"manifests": [' if n in ('index.json', 'manifest.json') else d)
                 for n, d in files]
    if opt.get('order') == 'first':
        files.reverse()
    data = io.BytesIO()
    t = tarfile.open(fileobj=data, mode='w', format=tarfile.PAX_FORMAT)
    seen = set()
    for name, content in files:
        parent = os.path.dirname(name)
        if parent and parent not in seen and opt.get('order') != 'first':
            seen.add(parent)
            t.addfile(info(parent, tarfile.DIRTYPE))
        if isinstance(content, str):
            t.addfile(info(name, tarfile.SYMTYPE, linkname=content))
        else:
            t.addfile(info(name, size=len(content)), io.BytesIO(content))
    t.close()
    with open(out, 'wb') as f:
        f.write(squeeze(data.getvalue(), opt.get('outer', 'none')))


def hostile(out):
    def save(name, files):
        t = tarfile.open(os.path.join(out, name + '.tar'), 'w', format=tarfile.PAX_FORMAT)
        for path, data in files.items():
            data = data if isinstance(data, bytes) else json.dumps(data).encode()
            t.addfile(info(path, size=len(data)), io.BytesIO(data))
        t.close()

    def sha(data):
        return 'sha256:' + hashlib.sha256(data).hexdigest()

    layout = b'{"imageLayoutVersion": "1.0.0"}'
    layer = io.BytesIO()
    tarfile.open(fileobj=layer, mode='w').close()
    layer = layer.getvalue()
    good = b'{"architecture": "amd64", "os": "linux", "config": {}}'

    def docker(name, config=good, layers=('l.tar',), config_name='c.json'):
        save('docker-' + name, {'manifest.json': [{'Config': config_name, 'Layers': layers}],
                                'c.json': config, 'l.tar': layer})

    def oci(name, index, **blobs):
        files = {'oci-layout': layout, 'index.json': index}
        for data in blobs.values():
            files['blobs/sha256/' + sha(data)[7:]] = data
        save('oci-' + name, files)

    def points_to(data, **more):
        return {'schemaVersion': 2, 'manifests': [dict(digest=sha(data), size=len(data), **more)]}

    def manifest(layers, config=good):
        return json.dumps({'schemaVersion': 2, 'layers': layers,
                           'config': {'digest': sha(config), 'size': len(config)}}).encode()

    docker('deep', b'[' * 500000)
    docker('deep-object', b'{"config":' * 200000)
    docker('not-object', b'[]')
    docker('env-number', b'{"config": {"Env": [1]}}')
    docker('env-null', b'{"config": {"Env": [null]}}')
    docker('env-nul', b'{"config": {"Env": ["A=b\\u0000c"]}}')
    docker('user-object', b'{"config": {"User": {}}}')
    docker('utf8', b'{"config": {"User": "\xff\xfe"}}')
    docker('huge', b'{"config": {"User": "' + b'x' * (9 << 20) + b'"}}')
    docker('garbage-behind', good + b'{}')
    docker('layer-outside', layers=['../../../../etc/passwd'])
    docker('layer-absolute', layers=['/etc/passwd'])
    docker('layer-number', layers=[7])
    docker('layer-missing', layers=['none.tar'])
    docker('layer-is-config', layers=['c.json'])
    docker('config-outside', config_name='../../etc/passwd')
    docker('config-missing', config_name='none.json')
    save('docker-many-images', {'manifest.json': [
        {'Config': 'c.json', 'Layers': ['l.tar'], 'RepoTags': ['a:1\n\x1b[31m']},
        {'Config': 'c.json', 'Layers': ['l.tar'], 'RepoTags': ['b:1']}],
        'c.json': good, 'l.tar': layer})

    oci('no-manifests', {'schemaVersion': 2})
    oci('empty', {'schemaVersion': 2, 'manifests': []})
    oci('number', {'schemaVersion': 2, 'manifests': [5]})
    oci('digest-path', {'manifests': [{'digest': 'sha256:../../../../etc/passwd'}]})
    oci('digest-algorithm', {'manifests': [{'digest': 'md5:' + '0' * 32}]})
    oci('digest-number', {'manifests': [{'digest': 5}]})
    oci('missing-blob', {'manifests': [{'digest': 'sha256:' + '0' * 64}]})
    inner = json.dumps({'manifests': []}).encode()
    chain = {}
    for i in range(40):  # each one points to the one before
        chain['i%d' % i] = inner
        inner = json.dumps(points_to(inner)).encode()
    oci('index-chain', json.loads(inner), **chain)
    m = manifest([{'digest': 'sha256:' + '1' * 64}])
    oci('layer-missing', points_to(m), m=m, c=good)
    m = manifest([{'digest': sha(layer)}] * 3 + ['x'])
    oci('layer-string', points_to(m), m=m, c=good, layer=layer)
    m = manifest({'digest': sha(layer)})
    oci('layers-object', points_to(m), m=m, c=good, layer=layer)
    m = manifest([{'digest': sha(b'not a tar' * 1000)}])
    oci('layer-no-tar', points_to(m), m=m, c=good, layer=b'not a tar' * 1000)
    m = manifest([{'digest': sha(layer)}], b'{"os": "windows", "architecture": "amd64"}')
    oci('windows', points_to(m), m=m, c=b'{"os": "windows", "architecture": "amd64"}', l=layer)
    m = manifest([{'digest': sha(layer)}])
    oci('other-platform', points_to(m, platform={'os': 'linux', 'architecture': 'riscv64'}),
        m=m, c=good, layer=layer)


{'tree': tree, 'member': member, 'many': many, 'blocks': blocks, 'hostile': hostile,
 'archive': archive}[sys.argv[1]](*sys.argv[2:])
