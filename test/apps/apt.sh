#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# apt, dpkg and perl.
# timeout: 90
. "$(dirname "$0")/app.sh"
out=$(box apt-get --version </dev/null 2>&1)
expect_match apt_version '^apt [0-9.]+ \(amd64\)' "$(printf '%s\n' "$out" | head -n 1)"
app dpkg_query "install ok installed" dpkg-query -W -f '${Status}' bash
app dpkg_audit "" dpkg --audit
app perl_fork "parent saw 5, sorted 1 2 3" perl -e '$|=1; my $p = fork; exit 5 unless $p; waitpid $p, 0;
	print "parent saw ", $? >> 8, ", sorted @{[sort (3,1,2)]}\n"'
app perl_pipe "6" perl -e 'open my $f, "-|", "echo 1 2 3" or die; my $s = 0; $s += $_ for split " ", <$f>; print "$s\n"'
app perl_hash "100000" perl -e 'my %h; $h{$_ * 7} = $_ for 1..100000; print scalar(keys %h), "\n"'
finish
