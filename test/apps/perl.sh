#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# perl: processes, pipes, unix sockets, select, alarms, locks, directories, its own modules.
# timeout: 120
. "$(dirname "$0")/app.sh"
app fork_pipes "4 10 1 2 3 4" perl -e '
	my @r; my $n = 0; my $sum = 0;
	for my $i (1 .. 4) { pipe(my $r, my $w) or die; my $p = fork // die;
		if (!$p) { close $r; print $w "$i\n"; exit $i } close $w; push @r, $r }
	my @got = map { my $l = <$_>; chomp $l; $l } @r;
	while ((my $p = wait) > 0) { $n++; $sum += $? >> 8 }
	print "$n $sum @got\n"'
app socketpair "PING 4 then end" perl -e 'use Socket;
	socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die $!;
	if (!fork) { close $a; sysread $b, my $x, 10; syswrite $b, uc $x; exit }
	close $b; syswrite $a, "ping"; my $n = sysread $a, my $y, 10; my $e = sysread $a, my $z, 10;
	wait; print "$y $n then ", $e == 0 ? "end" : "more", "\n"'
app unix_server "3 clients: a b c" perl -MIO::Socket::UNIX -e '
	my $s = IO::Socket::UNIX->new(Local => "/tmp/p.sock", Listen => 5) or die "$!";
	for my $w (qw(a b c)) { if (!fork) { my $c = IO::Socket::UNIX->new(Peer => "/tmp/p.sock") or die "$!";
		print $c "$w\n"; exit } }
	my @got; for (1 .. 3) { my $c = $s->accept; chomp(my $l = <$c>); push @got, $l }
	1 while wait > 0; print scalar(@got), " clients: @{[sort @got]}\n"'
app select_timeout "none one" perl -e 'pipe(my $r, my $w); my $v = ""; vec($v, fileno $r, 1) = 1;
	my $a = select(my $x = $v, undef, undef, 0.1); syswrite $w, "x"; my $b = select($x = $v, undef, undef, 5);
	print $a == 0 ? "none" : "?", " ", $b == 1 ? "one" : "?", "\n"'
app alarm "timed out" perl -e 'eval { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 1; select undef, undef, undef, 20; };
	print $@ eq "alarm\n" ? "timed out\n" : "no: $@\n"'
app sigchld "5 children" perl -MPOSIX=:sys_wait_h -e 'my $n = 0;
	$SIG{CHLD} = sub { while (waitpid(-1, WNOHANG) > 0) { $n++ } };
	for (1 .. 5) { exit 0 unless fork } while ($n < 5) { select undef, undef, undef, 0.05 } print "$n children\n"'
app flock "child waits" perl -MFcntl=:flock -e 'open my $f, ">", "/tmp/l"; flock $f, LOCK_EX; pipe(my $r, my $w);
	if (!fork) { open my $g, ">", "/tmp/l"; exit(flock($g, LOCK_EX | LOCK_NB) ? 1 : 0) }
	wait; print $? == 0 ? "child waits\n" : "child has it\n"'
app directories "1000 names, 0 left" perl -e 'mkdir "/tmp/d"; for (1 .. 1000) { open my $f, ">", "/tmp/d/$_" }
	opendir my $d, "/tmp/d"; my $n = grep { !/^\./ } readdir $d; unlink glob "/tmp/d/*"; rewinddir $d;
	my $m = grep { !/^\./ } readdir $d; print "$n names, $m left\n"'
app threads "30" perl -Mthreads -Mthreads::shared -e 'my $n :shared = 0;
	my @t = map { threads->create(sub { for (1 .. 10) { lock $n; $n++ } }) } 1 .. 3; $_->join for @t; print "$n\n"'
app sort_big "200000 ok" perl -e 'srand 1; my @a = map { int rand 1e9 } 1 .. 200000; my @b = sort { $a <=> $b } @a;
	for (1 .. $#b) { die if $b[$_] < $b[$_ - 1] } print scalar(@b), " ok\n"'
app in_place "b b" perl -e 'open my $f, ">", "/tmp/i"; print $f "a a\n"; close $f;
	system($^X, "-pi.bak", "-e", "s/a/b/g", "/tmp/i") == 0 or die; open $f, "<", "/tmp/i"; print <$f>'
finish
